"""`python -m dv2_core.drawn --out DIR [NAME ...]`: writes drawn subjects as small PNG files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from . import draw_subject, subject_names

#: What the pack ships as example subjects.
EXAMPLES = ("toadstool", "robot", "fish")

#: Colours are rounded to multiples of this: not visible, and it takes a third off a PNG of smooth shading.
STEP = 4


def main(arguments: list[str] | None = None) -> int:
    """Writes DIR/NAME.png for each name and prints the paths. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dv2_core.drawn", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the PNG files; made if missing")
    known = ", ".join(subject_names())
    parser.add_argument("names", nargs="*", help=f"subjects to write, default {' '.join(EXAMPLES)}; of {known}")
    options = parser.parse_args(arguments)
    names = options.names or EXAMPLES
    try:
        pictures = {name: draw_subject(name) for name in names}
    except ValueError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        path = options.out / f"{name}.png"
        pixels = np.array(picture).astype(int)  # [256, 256, 4]
        pixels[..., :3] = (pixels[..., :3] + STEP // 2) // STEP * STEP
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA").save(path, optimize=True)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

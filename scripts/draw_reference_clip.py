"""Draws the reference video of the template "follow a reference video": a lantern on its way across a night sky.

    python scripts/draw_reference_clip.py models/clips/dreamvideo2_lantern.mp4

24 frames of 128x128 pixels at 12 frames per second. In two frames the lantern's light is out, so that a mask of the
bright pixels has a gap to fill.
"""

import math
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE, FRAMES, RATE = 128, 24, 12
DARK = (11, 12)  # the frames without light
LANTERN = (33.0, 38.0)  # half width and half height, pixels
Y, X = np.mgrid[0:SIZE, 0:SIZE] + 0.5


def centre(t: float) -> tuple[float, float]:
    """Of the lantern at the share t (0..1) of the clip: up from the lower left, over the middle, down to the right."""
    return 40 + 50 * t, 84 - 42 * math.sin(math.pi * t) ** 0.8 + 2 * math.sin(9 * t)


def frame(index: int) -> np.ndarray:
    """RGB [SIZE, SIZE, 3], 0..255."""
    sky = np.stack([14 + 10 * Y / SIZE, 20 + 22 * Y / SIZE, 48 + 44 * Y / SIZE], -1)
    stars = np.random.default_rng(7).integers(2, SIZE - 2, (28, 2))
    sky[stars[:, 0], stars[:, 1]] += 60
    cx, cy = centre(index / (FRAMES - 1))
    radius = np.hypot((X - cx) / LANTERN[0], (Y - cy) / LANTERN[1])
    inside = np.clip((1 - radius) * 14 + 0.5, 0, 1)[..., None]  # about two pixels of soft edge
    ribs = 0.94 + 0.06 * np.cos((Y - cy) * 0.55)
    lit = index not in DARK
    paper = np.stack([250 * ribs, (190 - 50 * radius) * ribs, (96 - 40 * radius) * ribs], -1) if lit else sky * 0.55
    glow = 18 * np.exp(-((np.maximum(radius, 1) - 1) * 2.5))[..., None] if lit else 0.0
    return np.clip((sky + glow) * (1 - inside) + paper * inside, 0, 255).astype(np.uint8)


def main() -> None:
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(RATE), options={"crf": "20", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for index in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(index), format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()

"""What curating ten million clips costs on paper: GPU-hours, core-hours, storage, money, and what it waits for.

    python scripts/curation_scale.py            # the table of docs/curation.md

Nothing here was measured at that scale. Every assumption is a field of `Assumptions`, with where it comes from.
"""

import argparse
import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dv2_core import rle  # noqa: E402
from dv2_core.drawn import drawn_subjects  # noqa: E402


@dataclass(frozen=True)
class Assumptions:
    """clips: that are listed, with captions. frames, width, height, megabytes: of each (4 s at 25 fps, 2 Mbit/s).

    GPU-seconds are of an A100. detect: Grounding DINO tiny at 800 pixels, one picture (assumed 12 a second). segment:
    one SAM 2 picture. tracked: frames of SAM 2 a second; its README gives 39.5 for the large and 91.2 for the tiny
    model, compiled; half of that for `transformers` without compilation.
    decoded: frames a second and core at this size (assumed). word: spaCy, seconds a caption (assumed).
    passed_*: shares of the clips that are left by a stage; assumed, and the largest uncertainty here.
    """

    clips: int = 10_000_000
    frames: int = 100
    width: int = 640
    height: int = 360
    megabytes: float = 1.0
    detect: float = 0.08
    segment: float = 0.05
    tracked: float = 20.0
    decoded: float = 1000.0
    word: float = 0.005
    passed_videos: float = 0.95
    passed_word: float = 0.80
    passed_one_box: float = 0.30
    passed_size: float = 0.80
    passed_visible: float = 0.85
    passed_motion: float = 0.35
    gpu_dollars: float = 2.0
    core_dollars: float = 0.04
    state_kilobytes: float = 4.0


def mask_bytes(width: int, height: int) -> float:
    """Mean size of a mask as run lengths: drawn subjects as high as half the frame."""
    sizes = []
    for picture in drawn_subjects().values():
        alpha = np.asarray(picture.resize((height // 2, height // 2), Image.Resampling.BILINEAR))[..., 3] >= 128
        mask = np.zeros((height, width), bool)
        mask[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + height // 2] = alpha
        sizes.append(len(json.dumps(rle.encode(mask))))
    return float(np.mean(sizes))


def table(a: Assumptions) -> str:
    """The stages with what reaches them and what they cost, and the sums."""
    decode = a.frames / a.decoded
    stages = [  # name, share that is left, GPU-seconds, core-seconds of a clip
        ("probe", a.passed_videos, 0.0, decode),
        ("split", 1.0, 0.0, decode),
        ("subject", a.passed_word, 0.0, a.word),
        ("detect", a.passed_one_box, a.detect, 1 / a.decoded + 0.01),
        ("size", a.passed_size, 0.0, 0.0),
        ("segment", 1.0, a.segment, 0.02),
        ("track", 1.0, a.frames / a.tracked, decode + a.frames * 0.005),
        ("visible", a.passed_visible, 0.0, 0.0),
        ("motion", a.passed_motion, 0.0, 0.0),
    ]
    lines = ["| stage | clips in, millions | GPU-hours | core-hours |", "| --- | --- | --- | --- |"]
    clips, gpu, cores, masks = float(a.clips), 0.0, 0.0, 0.0
    for name, left, gpu_seconds, core_seconds in stages:
        hours = clips * gpu_seconds / 3600, clips * core_seconds / 3600
        lines.append(f"| {name} | {clips / 1e6:.2f} | {hours[0]:,.0f} | {hours[1]:,.0f} |")
        gpu, cores = gpu + hours[0], cores + hours[1]
        masks += clips * a.frames * mask_bytes(a.width, a.height) * (name == "track")
        clips *= left
    dollars = gpu * a.gpu_dollars + cores * a.core_dollars
    lines.append(f"| **all** | {clips / 1e6:.2f} accepted | **{gpu:,.0f}** | **{cores:,.0f}** |")
    state = a.clips * 2 * a.state_kilobytes * 1e3 + masks
    lines += [
        "",
        f"- cost: {dollars:,.0f} dollars ({a.gpu_dollars:g} a GPU-hour, {a.core_dollars:g} a core-hour)",
        f"- time: {gpu / 64:,.0f} hours on 64 GPUs, which {cores / gpu * 64:,.0f} cores keep busy",
        f"- storage: {a.clips * a.megabytes / 1e6:,.1f} TB of videos are read; state {state / 1e9:,.0f} GB, of which "
        f"{masks / 1e9:,.0f} GB are masks; manifest {clips * a.frames * mask_bytes(a.width, a.height) / 1e9:,.0f} GB; "
        f"accepted videos {clips * a.megabytes / 1e6:,.2f} TB",
        f"- per accepted clip: {gpu * 3600 / clips:.0f} GPU-seconds",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name}", type=float, default=field.default)
    values = {name: value for name, value in vars(parser.parse_args()).items()}
    print(table(replace(Assumptions(), **values)))


if __name__ == "__main__":
    main()

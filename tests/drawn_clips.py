"""Tiny videos of the package's own drawn subjects, moving right over a plain colour, with exact boxes and masks."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np

from dv2_core import rle
from dv2_core.drawn import draw_subject, subject_names

WIDTH, HEIGHT, FRAMES, FPS, SIDE = 64, 48, 10, 16, 26


def draw_frames(name: str, step: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Frames [F, H, W, 3] uint8 and masks [F, H, W] bool of one subject that moves ``step`` pixels a frame."""
    rgba = np.asarray(draw_subject(name).resize((SIDE, SIDE)))
    colour = [60 + 40 * (len(name) % 4), 120, 90]
    frames = np.full((FRAMES, HEIGHT, WIDTH, 3), colour, np.uint8)
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    for t in range(FRAMES):
        window = (t, slice(8, 8 + SIDE), slice(2 + step * t, 2 + step * t + SIDE))
        alpha = rgba[..., 3:] / 255
        frames[window] = frames[window] * (1 - alpha) + rgba[..., :3] * alpha
        masks[window] = rgba[..., 3] >= 128
    return frames, masks


def write_video(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "6"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_clip(folder: Path, name: str) -> dict[str, Any]:
    """Writes ``name``.mp4 and gives its manifest row."""
    frames, masks = draw_frames(name)
    write_video(folder / f"{name}.mp4", frames)
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1])
    return {
        "video": f"{name}.mp4", "caption": f"a {name} moving right", "fps": FPS, "frames": [0, FRAMES],
        "width": WIDTH, "height": HEIGHT, "subject": {"phrase": name, "obj_id": "1"}, "boxes": boxes,
        "mask_rle": [rle.encode(mask) for mask in masks],
    }  # fmt: skip


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_clips(folder: Path, count: int = 5) -> list[dict[str, Any]]:
    """Writes the clips and ``clips.jsonl`` into ``folder``; gives the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [write_clip(folder, name) for name in subject_names()[:count]]
    write_manifest(folder / "clips.jsonl", rows)
    return rows

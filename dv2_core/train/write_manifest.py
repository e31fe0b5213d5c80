"""``python -m dv2_core.train.write_manifest FOLDER``: a manifest from videos with captions and masks beside them.

For every NAME.mp4 in the folder: NAME.txt is its caption; NAME.masks/ holds PNGs of the subject (white, or coloured in
a palette picture), one per frame in order, or some, each named after its frame (00012.png is frame 12, the first is 0);
NAME.boxes.json, if there is one, says the boxes in any form that ``dv2_core.boxes.parse_boxes`` reads, in pixels.
Without it the boxes are the tight ones around the masks.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch

from .. import rle
from ..boxes import from_masks, parse_boxes
from ..manifest import ClipRow, PixelBox, parse_row
from .data_sources import VIDEOS, read_mask
from .video import probe


def write_manifest(folder: Path, seconds: float = 2.0) -> tuple[Path, list[str]]:
    """Write ``folder/clips.jsonl``, one row for every ``seconds`` of every video in which the subject is seen.

    Returns the manifest's path and one line per video, for people. Raises ValueError with a sentence for a folder
    without videos, and for a video without caption or masks.
    """
    videos = sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEOS) if folder.is_dir() else []
    if not videos:
        raise ValueError(f"There is no video in {folder}; give the folder of your {', '.join(VIDEOS)} files.")
    lines, notes = [], []
    for video in videos:
        rows, parts = video_rows(video, seconds)
        lines += [row.to_json() + "\n" for row in rows]
        notes.append(f"{video.name}: {len(rows)} of {parts} parts of {seconds:g} s show the subject")
    path = folder / "clips.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path, notes


def video_rows(video: Path, seconds: float) -> tuple[list[ClipRow], int]:
    """The rows of one video, and the number of parts that it has."""
    caption = video.with_suffix(".txt")
    if not caption.is_file():
        raise ValueError(
            f"{video.name} has no caption; write what it shows, with the subject's name, into {caption.name}."
        )
    fps, length, width, height = probe(video)
    masks = read_masks(video.with_suffix(".masks"), length, width, height)
    boxes = read_boxes(video.with_suffix(".boxes.json"), masks, length, width, height)
    step = max(1, round(seconds * fps))
    starts = range(0, length - step + 1, step) if length >= step else range(1)
    rows = []
    for first in starts:
        part = range(first, min(first + step, length))
        if not any(boxes[n] for n in part) or not any(n in masks for n in part):
            continue
        row = ClipRow(
            video=video.name, caption=caption.read_text(encoding="utf-8").strip(), fps=fps,
            frames=(part.start, part.stop), width=width, height=height, boxes=tuple(boxes[n] for n in part),
            mask_rle=tuple(rle.encode(masks[n]) if n in masks else None for n in part),
        )  # fmt: skip
        parse_row(row.to_json(), video.name)  # what is written can be read
        rows.append(row)
    return rows, len(starts)


def read_masks(folder: Path, length: int, width: int, height: int) -> dict[int, np.ndarray]:
    """{frame: mask [height, width]} of the PNGs in a folder, those that are empty left out."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise ValueError(
            f"There is no {folder.name}/ with PNG masks beside the video. A mask of the subject is needed in one frame "
            "of each part at least; segment it, for example with SAM 2 in ComfyUI. It is not found automatically yet."
        )
    numbers = range(length)
    if len(files) != length:
        found = [re.findall(r"\d+", file.stem) for file in files]
        numbers = [int(digits[-1]) if digits else -1 for digits in found]
        for file, number in zip(files, numbers, strict=True):
            if not 0 <= number < length:
                raise ValueError(
                    f"{folder.name}/{file.name}: the video has frames 0 to {length - 1}; give one mask per frame, or "
                    "name each after its frame."
                )
    masks = (read_mask(file, (width, height), "0", folder.name) for file in files)
    return {number: mask for number, mask in zip(numbers, masks, strict=True) if mask.any()}


def read_boxes(file: Path, masks: dict[int, np.ndarray], length: int, width: int, height: int) -> list[PixelBox | None]:
    """One box per frame in pixels, None where the subject is not seen."""
    boxes: list[PixelBox | None] = [None] * length
    if file.is_file():
        try:
            track = parse_boxes(file.read_text(encoding="utf-8"), length, width, height)
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from error
        found = {n: track.boxes[n] for n in range(length) if track.visible[n]}
    else:
        found = {n: from_masks(torch.from_numpy(mask)[None].float()).boxes[0] for n, mask in masks.items()}
    for n, (x1, y1, x2, y2) in found.items():
        boxes[n] = (round(x1 * width, 2), round(y1 * height, 2), round(x2 * width, 2), round(y2 * height, 2))
    return boxes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dv2_core.train.write_manifest", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("folder", type=Path, help="folder with the videos, captions and masks")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a row; a longer video gives several")
    arguments = parser.parse_args()
    try:
        path, notes = write_manifest(arguments.folder, arguments.seconds)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print("\n".join([*notes, f"written: {path}"]))


if __name__ == "__main__":
    main()

"""Masks and boxes that lie beside a video, as pictures and text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import rle
from ..boxes import parse_boxes
from ..manifest import PixelBox
from ..train.data_sources import read_mask
from .clip import Clip, Reason, Rle
from .geometry import in_pixels
from .video import picture_files


def read_given(clip: Clip) -> Clip | Reason:
    """The clip with the masks and boxes of its frames. ValueError for files that do not fit the video."""
    masks, boxes = clip.masks, clip.boxes
    if clip.mask_folder is not None:
        masks = _masks(clip, Path(clip.mask_folder))
    if clip.box_file is not None:
        boxes = _boxes(clip, Path(clip.box_file))
    if clip.start_mask is not None or not any(masks or boxes or ()):
        if clip.mask_folder is not None or clip.box_file is not None:
            return Reason("lost", "the masks and boxes that are given show no subject")
        return clip
    if boxes is not None:  # a mask where there is no box would be of something else
        masks = tuple(m if b else None for m, b in zip(masks, boxes, strict=True)) if masks else None
    seen = [n for n, entry in enumerate(masks or boxes or ()) if entry]
    if not seen:
        return Reason("lost", "no frame has both a mask and a box")
    return replace(clip, masks=masks, boxes=boxes, ref_frame=clip.first + seen[0])


def _masks(clip: Clip, folder: Path) -> tuple[Rle | None, ...]:
    """One entry per frame of the clip; None where nothing is marked."""
    files = _by_frame(clip, folder)
    found: list[Rle | None] = []
    for number in range(*clip.span):
        file = files.get(number)
        mask = None if file is None else read_mask(file, (clip.width, clip.height), clip.obj_id, folder.name)
        found.append(rle.encode(mask) if mask is not None and mask.any() else None)
    return tuple(found)


def _by_frame(clip: Clip, folder: Path) -> dict[int, Path]:
    """{frame: file}: named like the picture of a frame, or one per frame in order, or named after its frame."""
    files = sorted(folder.glob("*.png"))
    if Path(clip.source).is_dir():
        places = {file.stem: n for n, file in enumerate(picture_files(Path(clip.source)))}
        return {places[file.stem]: file for file in files if file.stem in places}
    if len(files) == clip.length:
        return dict(enumerate(files))
    return {_number(file, clip.length): file for file in files}


def _number(file: Path, length: int) -> int:
    digits: Sequence[str] = re.findall(r"\d+", file.stem)
    number = int(digits[-1]) if digits else -1
    if not 0 <= number < length:
        raise ValueError(
            f"{file.parent.name}/{file.name}: the video has frames 0 to {length - 1}; give one mask per frame, or name "
            "each after its frame."
        )
    return number


def _boxes(clip: Clip, file: Path) -> tuple[PixelBox | None, ...]:
    """One entry per frame of the clip; None where the subject is hidden."""
    w, h = clip.width, clip.height
    try:
        track = parse_boxes(file.read_text(encoding="utf-8"), clip.length, w, h)
    except (ValueError, OSError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    return tuple(in_pixels(track.boxes[n], w, h) if track.visible[n] else None for n in range(*clip.span))

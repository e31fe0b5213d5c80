"""SEGS of the Impact Pack: detections of one picture, ((height, width), [SEG, ...]), boxes as xyxy pixels of it.

Facts: ltdrdata/ComfyUI-Impact-Pack `modules/impact/core.py` (the SEG tuple; mask_to_segs). A SEG does not say which
frame it is from, and its only name is its label. Nothing of that pack is needed to read or to write.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np

from ..plan import BoxPlan
from ..track import check_canvas, pixel_edges
from .common import Sightings, check_frames, check_own_size, check_total, read_box, read_id, read_numbers, shown


class SEG(NamedTuple):
    """The Impact Pack's fields by its names. cropped_mask: [h, w] float32 of crop_region; boxes x1, y1, x2, y2."""

    cropped_image: Any
    cropped_mask: np.ndarray
    confidence: float
    crop_region: list[int]
    bbox: list[int]
    label: str
    control_net_wrapper: Any = None


def read(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0,
         several: Literal["frames", "subjects"] | None = None) -> BoxPlan:  # fmt: skip
    """A list of SEGS, one per frame, or a single SEGS -> the plan of its subjects, who are told apart by their labels.

    Boxes are fractions of the picture that the SEGS are from. A single SEGS with one SEG holds for all frames.
    several: what the SEGs of a single SEGS are. "frames": one subject, one SEG per frame; "subjects": all in every
        frame; None raises ValueError, naming both.

    Raises ValueError, a sentence, for anything else, and for two SEGs of the same label in one frame.
    """
    check_canvas(width, height)
    frames = [value] if is_segs(value) else value
    if not isinstance(frames, (list, tuple)) or not frames or not all(map(is_segs, frames)):
        raise ValueError(
            f"The SEGS are {shown(value)}; give the Impact Pack's ((height, width), [SEG, ...]), or one per frame."
        )
    if is_segs(value):
        size, found = value
        if several == "frames":
            frames = [(size, [seg]) for seg in found]
        elif len(found) > 1 and several is None:
            raise ValueError(
                f"The SEGS hold {len(found)} boxes, which has two readings: one subject in {len(found)} frames "
                f"(segs_frames), or {len(found)} subjects in every frame (segs_subjects). Choose one of these formats, "
                "or connect one SEGS per frame."
            )
        else:
            check_total(length or 1, len(found))
            frames = [value] * (length or 1)
    length = check_frames(len(frames), length, "SEGS")
    sightings = Sightings()
    for t, (size, found) in enumerate(frames):
        own_height, own_width = (_whole(side) for side in size)
        check_own_size((own_width, own_height), f"The SEGS of frame {t}")
        for seg in found:
            label = "" if several == "frames" else _label(seg, f"frame {t}")
            box = read_box(read_numbers(seg.bbox, f"frame {t}"), f"frame {t}", own_width, own_height)
            sightings.add(label or "0", t, box, label)
    return sightings.plan(length, width, height, fps)


def write(plan: BoxPlan) -> list[tuple[tuple[int, int], list[SEG]]]:
    """One SEGS per frame: whole pixels, full masks, confidence 1. A SEG's label is its track's, where no other track
    has the same, else the track's id."""
    size = (plan.height, plan.width)
    frames: list[tuple[tuple[int, int], list[SEG]]] = [(size, []) for _ in range(plan.length)]
    taken = Counter(name for track in plan.tracks for name in {track.label, track.obj_id})
    for track in plan.tracks:
        label = track.label if track.label and taken[track.label] == 1 else track.obj_id
        for t, (box, visible) in enumerate(zip(track.boxes, track.visible, strict=True)):
            if visible:
                left, top, right, bottom = edges = pixel_edges(box, plan.width, plan.height)
                mask = np.ones((bottom - top, right - left), np.float32)
                frames[t][1].append(SEG(None, mask, 1.0, list(edges), list(edges), label))
    return frames


def is_segs(value: Any) -> bool:
    """Whether a value is ((height, width), [SEG, ...])."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    size, found = value
    pair = isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(_whole(side), int) for side in size)
    return pair and isinstance(found, (list, tuple)) and all(hasattr(seg, "bbox") for seg in found)


def _label(seg: Any, where: str) -> str:
    label = getattr(seg, "label", "")
    return "" if label is None or label == "" else read_id(label, where)


def _whole(side: Any) -> Any:
    """numpy's whole numbers as Python's."""
    return int(side) if isinstance(side, np.integer) else side

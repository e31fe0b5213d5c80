"""BBOX of KJNodes, the SAM 2 and SeC packs: four bare numbers or {startX, startY, endX, endY}, in pixels.

Facts: kijai/ComfyUI-KJNodes `utility/utility.py` (normalize_bboxes) and `nodes/curve_nodes.py` (PointsEditor),
9nate-drake/Comfyui-SecNodes `nodes.py` (parse_bbox). The four numbers are (x1, y1, x2, y2) in some nodes and
(x, y, width, height) in others, and nothing in the value says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..plan import BoxPlan
from ..track import Box, check_canvas, is_number, pixel_edges, show
from .bounding_box import only_track
from .common import Sightings, check_frames, is_finite, plain, read_box, read_numbers, shown

Reading = Literal["xyxy", "xywh", "dict"]

#: The keys of a box that was drawn with the mouse: the corner where the drag began, and where it ended.
DRAG_KEYS = ("startX", "startY", "endX", "endY")


def read(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0,
         reading: Reading | None = None) -> BoxPlan:  # fmt: skip
    """One subject's BBOX: a box for every frame, or a list with one entry per frame (a box, [box], or [] for none).

    reading: what four bare numbers mean; "dict" allows none of them. None takes the one reading that gives boxes on the
        canvas in all frames, and raises ValueError, with both readings, where both do and differ.

    Raises ValueError, a sentence, for anything else.
    """
    check_canvas(width, height)
    value = plain(value)
    if isinstance(value, dict) or (isinstance(value, (list, tuple)) and value and all(map(is_number, value))):
        entries: list[Any] = [value] * (length or 1)
    elif isinstance(value, (list, tuple)) and value:
        entries = list(value) * ((length or 1) if len(value) == 1 else 1)
    else:
        raise ValueError(f"The BBOX is {shown(value)}; give four numbers, a list of such boxes, or one per frame.")
    length = check_frames(len(entries), length)
    boxes: dict[int, Any] = {}
    for t, entry in enumerate(entries):
        for box in _of_frame(entry, t):
            boxes[t] = _check(box, t)
    if reading is None:
        found = _only_reading(boxes, width, height)
    else:
        found = _read_all(boxes, width, height, reading)
    sightings = Sightings()
    for t, box in found.items():
        sightings.add("0", t, box)
    return sightings.plan(length, width, height, fps)


def write(plan: BoxPlan, reading: Reading) -> list[Any]:
    """One subject's box per frame in whole pixels: tuples, or DRAG_KEYS objects for "dict".

    The receiving nodes have no empty frame, so a hidden frame gets the box that the track holds for it.
    """
    track = only_track(plan)
    written: list[Any] = []
    for box in track.boxes:
        left, top, right, bottom = pixel_edges(box, plan.width, plan.height)
        if reading == "dict":
            written.append(dict(zip(DRAG_KEYS, (left, top, right, bottom), strict=True)))
        else:
            size = (right, bottom) if reading == "xyxy" else (right - left, bottom - top)
            written.append((left, top, *size))
    return written


def _of_frame(entry: Any, t: int) -> Sequence[Any]:
    """The box of one frame's entry, or nothing; an entry is a box or a list of at most one."""
    entry = plain(entry)
    if not isinstance(entry, (list, tuple)) or any(map(is_number, entry)):
        return [entry]
    if len(entry) > 1:
        raise ValueError(f"Frame {t} has {len(entry)} boxes, and a BBOX does not say whose they are; keep one of them.")
    return entry


def _check(box: Any, t: int) -> Any:
    if isinstance(box, dict) and not all(key in box for key in DRAG_KEYS):
        raise ValueError(
            f"The box of frame {t} is {shown(box)}; a BBOX object has {', '.join(DRAG_KEYS)}. Connect x, y, width, "
            "height objects as BOUNDING_BOX."
        )
    return plain(box)


def _only_reading(boxes: dict[int, Any], width: int, height: int) -> dict[int, Box]:
    """The boxes in the one reading that works in all frames."""
    works: dict[str, dict[int, Box]] = {}
    problems: list[str] = []
    for reading in ("xyxy", "xywh"):
        try:
            works[reading] = _read_all(boxes, width, height, reading)
        except ValueError as error:
            problems.append(str(error))
    if not works:
        raise ValueError(
            problems[0] if problems[0] == problems[1] else f"{problems[0]} As x, y, width, height: no box."
        )
    first, *rest = works.values()
    if rest:
        t = next((t for t in boxes if first[t] != rest[0][t]), None)
        if t is not None:
            numbers = read_numbers(boxes[t], f"frame {t}")
            x, y, a, b = map(show, numbers)
            right, bottom = show(numbers[0] + numbers[2]), show(numbers[1] + numbers[3])
            raise ValueError(
                f"The box of frame {t}, {show(numbers)}, has two readings: corners (bbox_xyxy), from ({x}, {y}) to "
                f"({a}, {b}); or x, y, width, height (bbox_xywh), from ({x}, {y}) to ({right}, {bottom}). Choose the "
                "format bbox_xyxy or bbox_xywh."
            )
    return first


def _read_all(boxes: dict[int, Any], width: int, height: int, reading: str) -> dict[int, Box]:
    return {t: read_box(_corners(box, f"frame {t}", reading), f"frame {t}", width, height) for t, box in boxes.items()}


def _corners(box: Any, where: str, reading: str) -> Any:
    """The box as [x1, y1, x2, y2]; a dragged one may have begun at any of its corners."""
    if isinstance(box, dict):
        a, b, c, d = read_numbers([box[key] for key in DRAG_KEYS], where)
        return [min(a, c), min(b, d), max(a, c), max(b, d)]
    if reading == "xyxy" or not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(is_finite, box)):
        return box
    if reading == "dict":
        raise ValueError(f"The box of {where} is {shown(box)}; a dragged box has {', '.join(DRAG_KEYS)}.")
    x, y, w, h = box
    if w <= 0 or h <= 0:
        raise ValueError(f"The box of {where} is {shown(box)}; as x, y, width, height it has width and height above 0.")
    return [x, y, x + w, y + h]

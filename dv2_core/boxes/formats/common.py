"""What every format's reader shares: pixel boxes, who is seen in which frame, and the sentences about both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..interpolate import from_visible
from ..keyframes import MAX_BOXES
from ..plan import BoxPlan
from ..track import MAX_FRAMES, Box, BoxTrack, check_canvas, check_corners, check_length, clip, is_number, show

#: A box may leave the canvas by this many pixels (somebody's rounding) and is then cut to it.
SLACK = 0.5

#: Allowance for the arithmetic, in pixels.
ROUNDING = 1e-6

#: Levels of lists and objects; the keyframe document has eight.
MAX_DEPTH = 12

CONTAINERS = (dict, list, tuple)
DICT_KEYS = ("x", "y", "width", "height")


class Sightings:
    """Boxes as they are found, frame by frame and subject by subject, and the plan that they make.

    Subjects keep the order in which they are first seen.
    """

    def __init__(self) -> None:
        self.boxes: dict[str, dict[int, Box]] = {}
        self.labels: dict[str, str] = {}
        self.hidden: dict[str, set[int]] = {}

    def add(self, obj_id: str, frame: int, box: Box, label: str = "", visible: bool = True) -> None:
        """box: fractions of the canvas. Raises ValueError for a subject that is in this frame already."""
        found = self.boxes.setdefault(obj_id, {})
        if frame in found:
            raise ValueError(
                f"Frame {frame} has two boxes of the subject {show(obj_id)}; one subject has one box per frame: keep "
                "one of them, or give them different ids."
            )
        found[frame] = box
        if label:
            self.labels[obj_id] = label
        if not visible:
            self.hidden.setdefault(obj_id, set()).add(frame)

    def plan(self, length: int, width: int, height: int, fps: float) -> BoxPlan:
        """A frame without a subject's box hides it there; its box is interpolated."""
        check_length(length)
        if not self.boxes:
            raise ValueError(f"None of the {length} frames has a box; give at least one frame a box [x1, y1, x2, y2].")
        check_total(length, len(self.boxes))
        tracks = []
        for obj_id, found in self.boxes.items():
            track = from_visible(found, length, obj_id, self.labels.get(obj_id, ""))
            if hidden := self.hidden.get(obj_id):
                visible = tuple(v and t not in hidden for t, v in enumerate(track.visible))
                track = BoxTrack(track.boxes, visible, track.obj_id, track.label)
            tracks.append(track)
        return BoxPlan(tuple(tracks), width, height, fps)


def check_total(length: int, tracks: int) -> None:
    """Raises ValueError for more boxes than any video has; it keeps a slip from filling the memory."""
    if length * tracks > MAX_BOXES:
        raise ValueError(
            f"{tracks} subjects in {length} frames are {length * tracks} boxes; at most {MAX_BOXES} are read. Use "
            "fewer frames or fewer subjects."
        )


def hold(boxes: list[Any], length: int | None) -> list[list[Any]]:
    """The boxes of one picture in every frame; one frame where `length` is None."""
    check_total(length or 1, len(boxes))
    return [boxes] * (length or 1)


def check_frames(found: int, length: int | None, what: str = "boxes") -> int:
    """The number of frames of a value that has one entry per frame; `length`, unless None, must be the same."""
    if length is not None:
        check_length(length)
        if found != length:
            raise ValueError(
                f"There are {found} {what} for {length} frames; give exactly {length} {what}, set the length to "
                f"{found}, or give keyframes, which are interpolated."
            )
    if not 1 <= found <= MAX_FRAMES:
        raise ValueError(f"There are {found} {what}; give one per frame, from 1 to {MAX_FRAMES}.")
    return found


def read_box(value: Any, where: str, width: int, height: int) -> Box:
    """[x1, y1, x2, y2] or {"x", "y", "width", "height"} in pixels -> fractions of the canvas.

    Raises ValueError, naming `where`, for anything else, a box that leaves the canvas by more than SLACK and one under
    a pixel wide or high.
    """
    if isinstance(value, Mapping):
        if not all(key in value for key in DICT_KEYS):
            raise ValueError(f"The box of {where} is {shown(value)}; a box object has x, y, width and height.")
        x, y, w, h = (value[key] for key in DICT_KEYS)
        if not all(map(is_finite, (x, y, w, h))) or w <= 0 or h <= 0:
            raise ValueError(
                f"The box of {where} is {shown(value)}; x, y, width and height are finite numbers, width and height "
                "above 0."
            )
        value = [x, y, x + w, y + h]
    corners = read_numbers(value, where)
    x1, y1, x2, y2 = corners
    if (x1 > x2 or y1 > y2) and x2 > 0 and y2 > 0:
        raise ValueError(
            f"The box of {where} is {show(corners)}, with reversed corners; [x1, y1, x2, y2] has x1 < x2 and y1 < "
            f'y2. If it is x, y, width, height, write it as {{"x": .., "y": .., "width": .., "height": ..}}.'
        )
    check_corners(corners, where)
    if not on_canvas(corners, width, height):
        raise ValueError(
            f"The box of {where}, {show(corners)}, leaves the {width}x{height} canvas; keep x in 0..{width} and y in "
            f"0..{height}."
        )
    if min(x2 - x1, y2 - y1) < 1 - ROUNDING:
        fractions = max(x2, y2) <= 1
        raise ValueError(
            f"The box of {where}, {show(corners)}, is under one pixel wide or high; "
            + (
                f"these look like fractions: multiply x by {width} and y by {height}."
                if fractions
                else "make it at least one pixel in both directions."
            )
        )
    return clip([(x1 / width, y1 / height, x2 / width, y2 / height)])[0]


def on_canvas(pixels: Sequence[float], width: int, height: int) -> bool:
    """Whether the box stays on the canvas up to SLACK."""
    x1, y1, x2, y2 = pixels
    slack = SLACK + ROUNDING
    return x1 >= -slack and y1 >= -slack and x2 <= width + slack and y2 <= height + slack


def read_numbers(value: Any, where: str) -> list[float]:
    """Four finite numbers, in whatever sequence they come."""
    value = plain(value)
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(map(is_number, value)):
        raise ValueError(f"The box of {where} is {shown(value)}; a box is four numbers (x1, y1, x2, y2).")
    if not all(map(is_finite, value)):
        raise ValueError(f"The box of {where} is {shown(value)}; every number must be finite, no NaN or infinity.")
    return [float(number) for number in value]


def read_id(value: Any, where: str) -> str:
    """A subject's id: a short text or a whole number, as text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "" or len(show(value)) > 100:
        raise ValueError(f"The id of the box of {where} is {shown(value)}; give a short text or a whole number.")
    return str(value)


def is_finite(value: object) -> bool:
    """A real number that fits a float and is no NaN or infinity."""
    try:
        return is_number(value) and math.isfinite(float(value))  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond the floats
        return False


def check_plain(value: Any) -> None:
    """Raises ValueError for what no format has and Python chokes on: deep nesting and endless whole numbers."""
    level, depth = [value], 0
    while level:
        for item in level:
            if isinstance(item, int) and abs(item) >= 10**18:
                raise ValueError(
                    "The boxes contain a whole number of more than 18 digits; give finite, smaller numbers."
                )
        if depth > MAX_DEPTH:
            raise ValueError(f"The boxes are nested more than {MAX_DEPTH} levels deep; no format of boxes is.")
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, CONTAINERS))
        level, depth = [item for items in inner for item in items], depth + 1


def plain(value: Any) -> Any:
    """Tensors and arrays as nested lists; everything else as it is."""
    return value.tolist() if hasattr(value, "tolist") and hasattr(value, "shape") else value


def shown(value: Any) -> str:
    """`show` for values of other nodes: a tensor by its shape, and never more than one line."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {list(value.shape)}"
    return " ".join(show(value).split())


def scaled(box: Box, width: int, height: int) -> list[float]:
    """Fractions -> pixels to a thousandth, inside the canvas and at least one pixel wide and high."""
    x1, x2 = _side(box[0], box[2], width)
    y1, y2 = _side(box[1], box[3], height)
    return [x1, y1, x2, y2]


def _side(start: float, end: float, size: int) -> tuple[float, float]:
    low, high = round(start * size, 3), round(end * size, 3)
    if high - low >= 1:
        return low, high
    low = round(min(max((start + end) / 2 * size - 0.5, 0.0), size - 1.0), 3)
    return low, round(low + 1, 3)


def check_own_size(value: Any, where: str) -> tuple[int, int]:
    """A format's own (width, height): two whole numbers of pixels."""
    width, height = value
    try:
        check_canvas(width, height)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return width, height

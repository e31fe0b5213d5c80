"""The box sequence of one subject, and what every other file in this folder agrees on about boxes.

A box is (x1, y1, x2, y2): left, top, right and bottom edge as fractions of the canvas, origin top left. Fractions
survive a change of resolution; pixels exist only where a picture, a mask or a socket is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

Box = tuple[float, float, float, float]

#: More frames than any video model makes; it keeps a typing slip in `length` from filling the memory.
MAX_FRAMES = 100_000

#: Longer sides than any picture that a video model makes; it keeps a typing slip from filling the memory.
MAX_SIDE = 65_536

#: Edges this close outside the canvas are rounding of the arithmetic (float32 at most), not a box that leaves it.
ROUNDING = 1e-6


@dataclass(frozen=True)
class BoxTrack:
    """One box per frame for one subject. Immutable, comparable, hashable.

    boxes: T boxes (x1, y1, x2, y2), fractions of the canvas in 0..1 with x1 < x2 and y1 < y2.
    visible: T flags, False where the subject is hidden in that frame; left out, every frame is visible. A hidden
        frame still has a box (where the subject would be), so that a track can be resampled.
    obj_id, label: carried through to the formats that have a place for them.

    Raises ValueError for no boxes, a box that is not four finite numbers, reversed or equal corners, a box that
    leaves the canvas (cut it with `clip` first), and a `visible` of another length.
    """

    boxes: tuple[Box, ...]
    visible: tuple[bool, ...] = ()
    obj_id: str = "0"
    label: str = ""

    def __post_init__(self) -> None:
        boxes = tuple(check_box(box, f"frame {t}") for t, box in enumerate(self.boxes))
        check_length(len(boxes))
        visible = tuple(bool(v) for v in self.visible or ()) or (True,) * len(boxes)
        if len(visible) != len(boxes):
            raise ValueError(f"visible has {len(visible)} entries for {len(boxes)} boxes; give one per box, or none.")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "visible", visible)

    @property
    def length(self) -> int:
        """Number of frames T."""
        return len(self.boxes)

    def resample(self, length: int) -> BoxTrack:
        """The same motion in `length` frames: first and last box kept exactly, linear in time between frames.

        Visibility is that of the nearest old frame. One frame stretched to many stays where it is; many frames
        squeezed to one keep the first. Raises ValueError for a length outside 1..MAX_FRAMES.
        """
        check_length(length)
        step = (self.length - 1) / (length - 1) if length > 1 else 0.0
        # The product of the last frame may fall a rounding short of T - 1, hence the exact last position.
        positions = [t * step for t in range(length - 1)] + [float(self.length - 1) if length > 1 else 0.0]
        boxes, visible = [], []
        for position in positions:
            before = min(int(position), self.length - 1)
            after = min(before + 1, self.length - 1)
            boxes.append(lerp(self.boxes[before], self.boxes[after], position - before))
            visible.append(self.visible[min(int(position + 0.5), self.length - 1)])
        return BoxTrack(tuple(boxes), tuple(visible), self.obj_id, self.label)


def clip(boxes: Iterable[Sequence[float]], first: int = 0) -> tuple[Box, ...]:
    """Boxes of the frames from `first` on, cut to the canvas 0..1. One with nothing left there raises ValueError."""
    clipped = []
    for t, box in enumerate(boxes, first):
        x1, y1, x2, y2 = check_corners(box, f"frame {t}")
        if x1 >= 1 or y1 >= 1 or x2 <= 0 or y2 <= 0:
            raise ValueError(
                f"The box of frame {t}, {show(box)}, lies wholly outside the canvas 0..1; move it inside, or make "
                "the frame invisible and give it a box inside the canvas."
            )
        clipped.append((max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0)))
    return tuple(clipped)


def cut(box: Box, width: int, height: int) -> tuple[Box, bool]:
    """A box that may lie anywhere -> the part of it on a canvas of width x height pixels, and whether to show it.

    Per axis the part is max(start, 0) .. min(end, 1). If that is under half a pixel, the subject counts as outside
    and is not shown; its stored box is then one pixel thick along this axis, as near as the canvas allows to the
    middle of the box. So a subject fades in and out at the edge of the canvas instead of leaving a line there.
    """
    x1, x2, shown_x = _cut(box[0], box[2], width)
    y1, y2, shown_y = _cut(box[1], box[3], height)
    return (x1, y1, x2, y2), shown_x and shown_y


def _cut(start: float, end: float, size: int) -> tuple[float, float, bool]:
    inside_start, inside_end = max(start, 0.0), min(end, 1.0)
    if (inside_end - inside_start) * size >= 0.5:
        return inside_start, inside_end, True
    thick = 1 / size
    start = min(max((start + end) / 2 - thick / 2, 0.0), 1 - thick)
    return start, min(start + thick, 1.0), False


def lerp(a: Box, b: Box, t: float) -> Box:
    """The box a fraction t (0..1) of the way from a to b; exactly a at 0 and exactly b at 1."""
    if t == 1:
        return b
    x1, y1, x2, y2 = (p + (q - p) * t for p, q in zip(a, b, strict=True))
    return (x1, y1, x2, y2)


def pixel_edges(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels of a box on a width x height canvas: (left, top, right, bottom), right and bottom exclusive.

    A pixel belongs to the box when its centre does; a box too thin to hold a centre takes the pixel (row, column)
    under its own centre, so that every box covers at least one pixel. Masks, overlays and integer formats all use
    this one rule, so they agree pixel for pixel.
    """
    left, right = _edges(box[0], box[2], width)
    top, bottom = _edges(box[1], box[3], height)
    return left, top, right, bottom


def _edges(start: float, end: float, size: int) -> tuple[int, int]:
    first, stop = math.ceil(start * size - 0.5), math.ceil(end * size - 0.5)
    if stop <= first:
        first = min(int((start + end) / 2 * size), size - 1)
        stop = first + 1
    return first, stop


def check_corners(box: Sequence[float], where: str) -> Box:
    """`box` as four plain finite floats with x1 < x2 and y1 < y2, anywhere; `where` names it in the ValueError."""
    if not isinstance(box, Sequence) or isinstance(box, str) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f"The box of {where} is {show(box)}; a box is four numbers (x1, y1, x2, y2).")
    x1, y1, x2, y2 = (float(v) for v in box)
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ValueError(f"The box of {where} is {show(box)}; every number must be finite, no NaN or infinity.")
    if x1 >= x2 or y1 >= y2:
        raise ValueError(
            f"The box of {where} is {show(box)}, with reversed or equal corners; order it as (x1, y1, x2, y2) with "
            "left < right and top < bottom."
        )
    return x1, y1, x2, y2


def check_box(box: Sequence[float], where: str) -> Box:
    """`check_corners`, and inside the canvas 0..1; edges within ROUNDING outside it are put onto it."""
    corners = check_corners(box, where)
    if min(corners) < -ROUNDING or max(corners) > 1 + ROUNDING:
        raise ValueError(
            f"The box of {where} is {show(box)}, outside the canvas 0..1; boxes are fractions of width and height "
            "here: divide pixels by the size, or cut the box to the canvas with clip() first."
        )
    x1, y1, x2, y2 = (min(max(v, 0.0), 1.0) for v in corners)
    return x1, y1, x2, y2


def check_length(length: int) -> None:
    """Raises ValueError unless `length`, a number of frames, is a whole number in 1..MAX_FRAMES."""
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MAX_FRAMES:
        raise ValueError(f"The length is {show(length)} frames; it must be a whole number from 1 to {MAX_FRAMES}.")


def check_canvas(width: int, height: int) -> None:
    """Raises ValueError unless both sides are whole numbers of pixels in 1..MAX_SIDE."""
    for name, size in (("width", width), ("height", height)):
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_SIDE:
            raise ValueError(
                f"The canvas {name} is {show(size)}; it must be a whole number of pixels, at least 1 and at most "
                f"{MAX_SIDE}."
            )


def is_number(value: object) -> bool:
    """A real number; True and False are answers, not numbers."""
    return isinstance(value, Real) and not isinstance(value, bool)


def show(value: object) -> str:
    """A value as it goes into an error sentence: short, floats without their rounding tail."""
    if isinstance(value, Real) and not isinstance(value, (bool, int)):
        text = f"{float(value):.6g}"
    elif isinstance(value, (list, tuple)) and len(value) <= 8:
        text = "[" + ", ".join(show(v) for v in value) + "]"
    else:
        try:
            text = repr(value)
        except (ValueError, RecursionError):  # an integer beyond Python's digit limit; nesting beyond its stack
            text = f"a {type(value).__name__} too large to print"
    return text if len(text) <= 120 else text[:117] + "..."

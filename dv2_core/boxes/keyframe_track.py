"""One subject's keyframes: their values, and the box that they give to every frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .curves import Point, catmull_rom, centre, polyline
from .plan import check_ids
from .track import Box, BoxTrack, check_corners, cut, is_number, lerp, show

Easing = Literal["linear", "ease-in", "ease-out", "ease-in-out", "hold"]
Interpolation = Literal["linear", "smooth"]

#: Share of the way, 0..1, at the share u of the time from one keyframe to the next.
EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "ease-in": lambda u: u * u,
    "ease-out": lambda u: 1 - (1 - u) * (1 - u),
    "ease-in-out": lambda u: u * u * (3 - 2 * u),
    "hold": lambda u: 0.0,
}

#: How far outside the canvas a keyframe may lie.
REACH = (-1.0, 2.0)


@dataclass(frozen=True)
class Keyframe:
    """The box of one frame, and how the subject goes on from there to the next keyframe.

    frame: 0, 1, 2, ... box: (x1, y1, x2, y2), fractions of the canvas within REACH.
    easing, path: of the motion to the next keyframe; a last keyframe keeps them for the day it gets a next one.
        path: () or points (u, x, y) of the centre at the shares u of the way, from 0 to 1.
    visible: from this frame until the next keyframe.

    Raises ValueError, a sentence, for anything else.
    """

    frame: int
    box: Box
    easing: Easing = "linear"
    visible: bool = True
    path: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.frame, bool) or not isinstance(self.frame, int) or self.frame < 0:
            raise ValueError(f"The frame is {show(self.frame)}; it must be a whole number, 0 or above.")
        box = check_corners(self.box, f"frame {self.frame}")
        if min(box) < REACH[0] or max(box) > REACH[1]:
            raise ValueError(
                f"The box of frame {self.frame} is {show(box)}, too far outside the canvas; boxes are fractions of "
                "width and height, within -1 to 2: divide pixels by the canvas size."
            )
        check_choice(self.easing, Easing, "easing")
        if not isinstance(self.visible, bool):
            raise ValueError(f"visible is {show(self.visible)}; it must be true or false.")
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "path", _check_path(self.path))


@dataclass(frozen=True)
class KeyframeTrack:
    """One subject's keyframes, at least one, frames ascending.

    interpolation: centres between keyframes without a path run straight ("linear") or along a Catmull-Rom curve
        through the keyframes ("smooth"). Raises ValueError, a sentence, for anything else.
    """

    keyframes: tuple[Keyframe, ...]
    obj_id: str = "0"
    label: str = ""
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        keys = self.keyframes
        if not isinstance(keys, Sequence) or not keys or not all(isinstance(key, Keyframe) for key in keys):
            raise ValueError(f"The keyframes are {show(keys)}; give a list of at least one keyframe.")
        for before, after in zip(keys, keys[1:], strict=False):
            if before.frame >= after.frame:
                raise ValueError(
                    f"A keyframe at frame {before.frame} is followed by one at frame {after.frame}; give each frame at "
                    "most one keyframe, in ascending order."
                )
        check_ids([self.obj_id])
        if not isinstance(self.label, str):
            raise ValueError(f"The label is {show(self.label)}; it must be a text.")
        check_choice(self.interpolation, Interpolation, "interpolation")
        object.__setattr__(self, "keyframes", tuple(keys))

    def boxes(self, length: int) -> list[Box]:
        """The box of every frame before it is cut to the canvas; held before the first and after the last keyframe.

        Between keyframes a and b at frame t: u = (t - a) / (b - a), e = EASINGS[easing of a](u). Width and height are
        linear in e. The centre is the polyline of a's path at e, first and last point replaced by the centres of the
        keyframes; or straight; or, if smooth, the cubic Hermite curve over b - a frames at e with the tangents
        m_k = (c_{k+1} - c_{k-1}) / (f_{k+1} - f_{k-1}) per frame, one-sided at the ends.
        """
        keys = self.keyframes
        smooth = self.interpolation == "smooth" and len(self.keyframes) > 1
        curve = catmull_rom([(key.frame, *centre(key.box)) for key in keys]) if smooth else None
        boxes = [keys[0].box] * min(keys[0].frame, length)
        for a, b in zip(keys, keys[1:], strict=False):
            ease, span = EASINGS[a.easing], b.frame - a.frame
            path = polyline([(0.0, *centre(a.box)), *a.path[1:-1], (1.0, *centre(b.box))]) if a.path else None
            for t in range(a.frame, min(b.frame, length)):
                e = ease((t - a.frame) / span)
                box = lerp(a.box, b.box, e)
                if path is not None:
                    box = _move(box, path(e))
                elif curve is not None:
                    box = _move(box, curve(a.frame + e * span))
                boxes.append(a.box if e == 0 else box)
        return boxes + [keys[-1].box] * (length - len(boxes))

    def visible(self, length: int) -> list[bool]:
        """Whether the subject is shown in each frame, as the keyframes say; what leaves the canvas comes on top."""
        keys = self.keyframes
        ends = [key.frame for key in keys[1:]] + [max(length, keys[-1].frame)]
        shown = [keys[0].visible] * keys[0].frame
        for key, end in zip(keys, ends, strict=True):
            shown += [key.visible] * (end - key.frame)
        return shown[:length]

    def evaluate(self, length: int, width: int, height: int) -> BoxTrack:
        """The track of `length` frames, cut to a canvas of width x height pixels as `cut` does."""
        boxes, shown = [], []
        for box, visible in zip(self.boxes(length), self.visible(length), strict=True):
            inside, kept = cut(box, width, height)
            boxes.append(inside)
            shown.append(visible and kept)
        return BoxTrack(tuple(boxes), tuple(shown), self.obj_id, self.label)


def _move(box: Box, to: Point) -> Box:
    """The box, its size kept, with its centre at `to`."""
    half_width, half_height = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    return to[0] - half_width, to[1] - half_height, to[0] + half_width, to[1] + half_height


def check_choice(value: Any, choices: Any, name: str) -> None:
    if not isinstance(value, str) or value not in get_args(choices):
        raise ValueError(f"The {name} is {show(value)}; it is one of {', '.join(get_args(choices))}.")


def _check_path(path: Any) -> tuple[tuple[float, float, float], ...]:
    """() or points (u, x, y) as plain floats."""
    if isinstance(path, str) or not isinstance(path, Sequence):
        raise ValueError(f"The path is {show(path)}; give a list of points [u, x, y].")
    if not path:
        return ()
    points = []
    for i, point in enumerate(path):
        numbers = isinstance(point, Sequence) and not isinstance(point, str) and all(map(is_number, point))
        if not numbers or len(point) != 3 or not all(map(math.isfinite, point)):
            raise ValueError(f"Point {i} of the path is {show(point)}; a point is three finite numbers [u, x, y].")
        u, x, y = map(float, point)
        if min(x, y) < REACH[0] or max(x, y) > REACH[1]:
            raise ValueError(
                f"Point {i} of the path is {show(point)}, too far outside the canvas; x and y are fractions of width "
                "and height, within -1 to 2: divide pixels by the canvas size."
            )
        if points and u <= points[-1][0]:
            raise ValueError(
                f"In the path u goes from {show(points[-1][0])} at point {i - 1} to {show(u)} at point {i}; it must "
                "ascend from point to point."
            )
        points.append((u, x, y))
    if points[0][0] != 0 or points[-1][0] != 1:
        raise ValueError(
            f"In the path u goes from {show(points[0][0])} to {show(points[-1][0])}; it must start at 0 and end at 1."
        )
    return tuple(points)

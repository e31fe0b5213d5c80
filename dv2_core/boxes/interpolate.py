"""Box tracks from the three sources of the paper (arXiv 2410.13830, inference).

(a) the boxes of the first and the last frame, generalised to any keyframes; (b) a first box and the trajectory of
its centre; (c) a reference video, here as the masks of its subject. All boxes are fractions of the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .track import Box, BoxTrack, check_box, check_length, is_number, lerp, show

if TYPE_CHECKING:
    from torch import Tensor


def from_first_and_last(first: Sequence[float], last: Sequence[float], length: int) -> BoxTrack:
    """Source (a): straight from the first frame's box to the last frame's, each edge linear in time.

    Raises ValueError for a bad box or length, and for one frame that is asked to hold two different boxes.
    """
    check_length(length)
    start, end = check_box(first, "the first frame"), check_box(last, "the last frame")
    if length == 1 and start != end:
        raise ValueError(
            f"The length is 1 frame, but the first box {show(start)} and the last box {show(end)} differ; use at "
            "least 2 frames, or the same box twice."
        )
    return from_keyframes({0: start, length - 1: end}, length)


def from_keyframes(keyframes: Mapping[int, Sequence[float]], length: int) -> BoxTrack:
    """Boxes at some frames (0 .. length - 1, any order), linear between them; held before the first and after the last.

    Raises ValueError for no keyframes, a frame number outside the clip, a bad box or length.
    """
    check_length(length)
    if not keyframes:
        raise ValueError(f"There are no keyframes for {length} frames; give at least one frame with its box.")
    for frame in keyframes:
        check_frame(frame, length)
    keys = sorted(keyframes)
    boxes = [check_box(keyframes[k], f"keyframe {k}") for k in keys]
    return BoxTrack(_fill(keys, boxes, length))


def from_first_and_trajectory(
    first: Sequence[float], points: Sequence[Sequence[float]], length: int, aspect: float = 1.0
) -> BoxTrack:
    """Source (b): the first frame's box moves along a path at constant speed and keeps its size.

    points: centres (x, y), fractions of the canvas, absolute. The path always starts at the centre of the first box;
        where the first point is another one, the box first goes there in a straight line. The last frame's centre is
        the last point.
    aspect: width / height of the canvas, so that constant speed means constant pixels per frame.

    Raises ValueError for no points, a point that is not two finite numbers, a bad box, and a frame whose box would
    leave the canvas.
    """
    return BoxTrack(along_trajectory(first, points, length, aspect))


def along_trajectory(
    first: Sequence[float], points: Sequence[Sequence[float]], length: int, aspect: float = 1.0
) -> tuple[Box, ...]:
    """The boxes of `from_first_and_trajectory` before anybody asks whether they stay on the canvas."""
    check_length(length)
    x1, y1, x2, y2 = check_box(first, "the first frame")
    if isinstance(points, str) or not isinstance(points, Sequence) or len(points) == 0:
        raise ValueError(f"The trajectory is {show(points)}; give at least one point (x, y).")
    centre = ((x1 + x2) / 2, (y1 + y2) / 2)
    path = [centre] + [check_point(point, f"point {i} of the trajectory") for i, point in enumerate(points)]
    # Travelled distance up to each point of the path, in units of the canvas height.
    distance = [0.0]
    for (ax, ay), (bx, by) in zip(path, path[1:], strict=False):
        distance.append(distance[-1] + math.hypot((bx - ax) * aspect, by - ay))

    boxes: list[Box] = []
    segment = 0
    for t in range(length):
        travelled = distance[-1] * t / (length - 1) if length > 1 else 0.0
        while segment < len(path) - 2 and distance[segment + 1] < travelled:
            segment += 1
        span = distance[segment + 1] - distance[segment]
        part = min((travelled - distance[segment]) / span, 1.0) if span > 0 else 0.0
        dx = path[segment][0] + (path[segment + 1][0] - path[segment][0]) * part - centre[0]
        dy = path[segment][1] + (path[segment + 1][1] - path[segment][1]) * part - centre[1]
        boxes.append((x1 + dx, y1 + dy, x2 + dx, y2 + dy))
    return tuple(boxes)


def from_masks(mask: Tensor) -> BoxTrack:
    """Source (c): the tight rectangle around each frame's mask > 0.5.

    mask: [F, H, W], values 0..1. A frame with nothing above 0.5 is not visible; its box is interpolated linearly
    between its visible neighbours (held at the ends). Inverse of `rasterize`.
    Raises ValueError for another shape, NaN, and a mask that is empty in every frame.
    """
    if mask.ndim != 3 or 0 in mask.shape:
        raise ValueError(f"The mask has shape {list(mask.shape)}; give one mask per frame, [frames, height, width].")
    frames, height, width = mask.shape
    if bool((mask != mask).any()):
        raise ValueError(f"The mask of shape {list(mask.shape)} contains NaN; give values from 0 to 1.")
    inside = mask > 0.5  # [F, H, W]
    columns, rows = inside.any(dim=1).tolist(), inside.any(dim=2).tolist()  # F lists of W, of H flags
    found: dict[int, Box] = {}
    for t in range(frames):
        if True in rows[t]:
            left, right = _extent(columns[t])
            top, bottom = _extent(rows[t])
            found[t] = (left / width, top / height, right / width, bottom / height)
    if not found:
        raise ValueError(
            f"The mask is empty (nothing above 0.5) in all {frames} frames; no box can be made from it. Check that it "
            "marks the subject with 1 and is not inverted."
        )
    return from_visible(found, frames)


def from_visible(found: Mapping[int, Box], length: int, obj_id: str = "0", label: str = "") -> BoxTrack:
    """A track that is visible in just the frames of `found`; the boxes of the others are interpolated."""
    keys = sorted(found)
    visible = tuple(t in found for t in range(length))
    return BoxTrack(_fill(keys, [found[k] for k in keys], length), visible, obj_id, label)


def check_frame(frame: int, length: int) -> None:
    """Raises ValueError unless `frame` is a whole number in 0 .. length - 1."""
    if isinstance(frame, bool) or not isinstance(frame, int):
        raise ValueError(f"The keyframe number {show(frame)} is not a whole number; frames count 0, 1, 2, ...")
    if not 0 <= frame < length:
        raise ValueError(
            f"Keyframe {show(frame)} lies outside the clip of {length} frames; frames count from 0 to {length - 1}."
        )


def check_point(point: Sequence[float], where: str) -> tuple[float, float]:
    """`point` as two finite floats; `where` names it in the ValueError."""
    pair = isinstance(point, Sequence) and not isinstance(point, str) and len(point) == 2
    if not pair or not all(map(is_number, point)) or not all(map(math.isfinite, point)):
        raise ValueError(f"{where[:1].upper()}{where[1:]} is {show(point)}; a point is two finite numbers [x, y].")
    return float(point[0]), float(point[1])


def _extent(flags: list[bool]) -> tuple[int, int]:
    """First set position, and one past the last."""
    return flags.index(True), len(flags) - flags[::-1].index(True)


def _fill(keys: Sequence[int], boxes: Sequence[Box], length: int) -> tuple[Box, ...]:
    """Boxes at sorted frames `keys` -> a box for every frame: linear between keys, held outside them."""
    filled: list[Box] = []
    after = 0  # index of the first key at or after frame t
    for t in range(length):
        while after < len(keys) and keys[after] < t:
            after += 1
        if after == len(keys):
            filled.append(boxes[-1])
        elif after == 0 or keys[after] == t:
            filled.append(boxes[after])
        else:
            before = keys[after - 1]
            filled.append(lerp(boxes[after - 1], boxes[after], (t - before) / (keys[after] - before)))
    return tuple(filled)

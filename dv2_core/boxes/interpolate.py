"""Box tracks from what an artist gives: sources (a) and (b) of the paper (arXiv 2410.13830, inference), generalised.

(a) the boxes of the first and the last frame: any keyframes; (b) a first box and the trajectory of its centre. Source
(c), a reference video, is in `masks` and `linking`. All boxes are fractions of the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .curves import Point, TimedPoint, catmull_rom, centre, polyline
from .keyframe_track import REACH, Interpolation, Keyframe, KeyframeTrack, check_choice
from .track import Box, BoxTrack, check_box, check_length, is_number, show

#: Straight pieces that stand for one piece of a smooth trajectory at constant speed: of a half circle, 0.04 % short.
PIECES = 32

#: Points of a trajectory closer than this, in canvas heights, are one and the same.
SAME_PLACE = 1e-9


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

    Easing, smooth curves, paths, and boxes that leave the canvas are a KeyframeTrack's, which does the work here too.
    Raises ValueError for no keyframes, a frame number outside the clip, a bad box or length.
    """
    check_length(length)
    if not keyframes:
        raise ValueError(f"There are no keyframes for {length} frames; give at least one frame with its box.")
    for frame in keyframes:
        check_frame(frame, length)
    return BoxTrack(_fill({frame: check_box(box, f"keyframe {frame}") for frame, box in keyframes.items()}, length))


def from_first_and_trajectory(first: Sequence[float], points: Sequence[Sequence[float]], length: int,
                              aspect: float = 1.0, *, interpolation: Interpolation = "linear",
                              times: Sequence[float] = (), scale: Sequence[float] = (1.0,)) -> BoxTrack:  # fmt: skip
    """Source (b): the first frame's box moves along a path, at constant speed or as fast as it was drawn.

    points: centres (x, y), fractions of the canvas, absolute. The path always starts at the centre of the first box.
        The last frame's centre is the last point.
    aspect: width / height of the canvas, so that constant speed means constant pixels per frame.
    interpolation: "linear": straight from point to point; "smooth": a Catmull-Rom curve through the points.
    times: () for constant speed along the path; where the first point is not the box's centre, the box first goes
        there. Or when each point was drawn, ascending, in any unit: first and last time are first and last frame, so
        the first point is taken to be the box's centre.
    scale: sizes of the box at evenly spaced times from the first frame (so 1, the first box) to the last, as factors
        of the first box's sides; linear in between.

    Raises ValueError for no points, a point that is not two finite numbers, times or a scale that do not fit, a bad
    box, and a frame whose box would leave the canvas.
    """
    return BoxTrack(
        along_trajectory(first, points, length, aspect, interpolation=interpolation, times=times, scale=scale)
    )


def along_trajectory(first: Sequence[float], points: Sequence[Sequence[float]], length: int, aspect: float = 1.0, *,
                     interpolation: Interpolation = "linear", times: Sequence[float] = (),
                     scale: Sequence[float] = (1.0,)) -> tuple[Box, ...]:  # fmt: skip
    """The boxes of `from_first_and_trajectory` before anybody asks whether they stay on the canvas."""
    check_length(length)
    box = check_box(first, "the first frame")
    if isinstance(points, str) or not isinstance(points, Sequence) or len(points) == 0:
        raise ValueError(f"The trajectory is {show(points)}; give at least one point (x, y).")
    check_choice(interpolation, Interpolation, "interpolation")
    places = [check_point(point, f"point {i} of the trajectory") for i, point in enumerate(points)]
    for i, place in enumerate(places):
        if min(place) < REACH[0] or max(place) > REACH[1]:
            raise ValueError(
                f"Point {i} of the trajectory is {show(place)}, too far outside the canvas; points are fractions of "
                "width and height here: divide pixels by the canvas size."
            )
    factors = _check_scale(scale)
    shares = _check_times(times, len(places))
    start = centre(box)
    if shares:
        path = [(0.0, *start)] + [(u, x, y) for u, (x, y) in zip(shares[1:], places[1:], strict=True)]
    else:
        path = _by_distance([start, *places], aspect)
        if interpolation == "smooth" and len(path) > 1:
            curve, pairs = catmull_rom(path), zip(path, path[1:], strict=False)
            bent = [curve(a[0] + (b[0] - a[0]) * i / PIECES) for a, b in pairs for i in range(PIECES)]
            path = _by_distance([*bent, path[-1][1:]], aspect)
    smooth = interpolation == "smooth" and shares
    at = catmull_rom(path) if smooth else polyline(path)
    size = polyline([(i / max(len(factors) - 1, 1), factor, 0.0) for i, factor in enumerate(factors)])
    boxes: list[Box] = []
    for t in range(length):
        u = t / (length - 1) if length > 1 else 0.0
        (x, y), (factor, _) = at(u), size(u)
        left, top = (box[0] - start[0]) * factor, (box[1] - start[1]) * factor
        right, bottom = (box[2] - start[0]) * factor, (box[3] - start[1]) * factor
        boxes.append((x + left, y + top, x + right, y + bottom))
    return tuple(boxes)


def from_visible(found: Mapping[int, Box], length: int, obj_id: str = "0", label: str = "") -> BoxTrack:
    """A track that is visible in just the frames of `found`; the boxes of the others are interpolated."""
    return BoxTrack(_fill(found, length), tuple(t in found for t in range(length)), obj_id, label)


def check_frame(frame: int, length: int) -> None:
    """Raises ValueError unless `frame` is a whole number in 0 .. length - 1."""
    if isinstance(frame, bool) or not isinstance(frame, int):
        raise ValueError(f"The keyframe number {show(frame)} is not a whole number; frames count 0, 1, 2, ...")
    if not 0 <= frame < length:
        raise ValueError(
            f"Keyframe {show(frame)} lies outside the clip of {length} frames; frames count from 0 to {length - 1}."
        )


def check_point(point: Sequence[float], where: str) -> Point:
    """`point` as two finite floats; `where` names it in the ValueError."""
    pair = isinstance(point, Sequence) and not isinstance(point, str) and len(point) == 2
    if not pair or not all(map(is_number, point)) or not all(map(math.isfinite, point)):
        raise ValueError(f"{where[:1].upper()}{where[1:]} is {show(point)}; a point is two finite numbers [x, y].")
    return float(point[0]), float(point[1])


def _fill(found: Mapping[int, Box], length: int) -> tuple[Box, ...]:
    """A box for every frame: linear between those of `found`, held outside them."""
    return tuple(KeyframeTrack(tuple(Keyframe(frame, found[frame]) for frame in sorted(found))).boxes(length))


def _by_distance(places: Sequence[Point], aspect: float) -> list[TimedPoint]:
    """(share of the way, x, y) of each place, 0 to 1; a place that is the same as the one before is left out."""
    path: list[TimedPoint] = [(0.0, *places[0])]
    for x, y in places[1:]:
        travelled, x0, y0 = path[-1]
        distance = travelled + math.hypot((x - x0) * aspect, y - y0)
        if distance - travelled > SAME_PLACE:
            path.append((distance, x, y))
    whole = path[-1][0] or 1.0
    return [(distance / whole, x, y) for distance, x, y in path]


def _check_times(times: Sequence[float], count: int) -> list[float]:
    """Shares of the whole time, 0 to 1; none for no times."""
    several = isinstance(times, Sequence) and not isinstance(times, str)
    if several and not times:
        return []
    if not several or not all(is_number(t) and math.isfinite(t) for t in times) or len(times) != count or count < 2:
        raise ValueError(
            f"The times are {show(times)} for {count} points of the trajectory; give one finite number per point, for "
            "at least two points, or no times for constant speed."
        )
    whole = max(times) - times[0] or 1.0
    shares = [(time - times[0]) / whole for time in times]
    for i, (before, after) in enumerate(zip(shares, shares[1:], strict=False)):
        if not before < after:
            raise ValueError(
                f"The times go from {show(times[i])} to {show(times[i + 1])}; they must ascend from point to point."
            )
    return shares


def _check_scale(scale: Sequence[float]) -> list[float]:
    numbers = not isinstance(scale, str) and isinstance(scale, Sequence) and all(map(is_number, scale))
    if not numbers or len(scale) == 0 or not all(map(math.isfinite, scale)) or min(scale) <= 0:
        raise ValueError(f"The scale is {show(scale)}; give factors above 0 of the first box's sides, 1 the first.")
    if scale[0] != 1:
        raise ValueError(
            f"The scale starts with {show(scale[0])}; it must start with 1, the size of the first frame's box. Give a "
            "larger or smaller first box instead."
        )
    return [float(factor) for factor in scale]

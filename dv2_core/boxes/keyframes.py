"""The keyframe document: boxes as somebody draws them, a few keyframes with easing and paths in between.

It is the box editor's state, what boxes are saved as, and what travels inside saved videos. Its twin in the browser is
web/js/keyframes.js; both evaluate it with the formulas below, so that the preview is what the model gets.

{"version": 1, "width": W, "height": H, "length": F, "fps": 8, "tracks": [{"id": "0", "label": "",
  "interpolation": "linear" | "smooth", "keyframes": [{"frame": 0, "box": [x1, y1, x2, y2],
  "easing": "linear" | "ease-in" | "ease-out" | "ease-in-out" | "hold", "visible": true, "path": [[u, x, y], ...]}]}]}

fps, label, interpolation, easing, visible and path may be left out. Boxes and path points are fractions of the canvas
within -1..2: a subject may enter and leave. Frames ascend. In a path u ascends from 0 to 1.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from .json_text import read_json
from .plan import BoxPlan, check_fps, check_ids
from .track import Box, BoxTrack, check_canvas, check_corners, check_length, cut, is_number, lerp, show

VERSION = 1
Point = tuple[float, float]
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

#: The file keeps six digits. A box's sides and the steps of u in a path must be this large to survive that.
DIGITS, SMALLEST = 6, 1e-5

#: Frames times tracks that a document may ask for; more is a slip, and would fill the memory.
MAX_BOXES = 1_000_000

EXAMPLE = (
    '{"version": 1, "width": 448, "height": 256, "length": 16, "tracks": [{"id": "0", "keyframes": '
    '[{"frame": 0, "box": [0.1, 0.2, 0.4, 0.8]}]}]}'
)


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
        if min(box[2] - box[0], box[3] - box[1]) < SMALLEST:
            raise ValueError(
                f"The box of frame {self.frame} is {show(box)}, under {SMALLEST:.5f} of the canvas wide or high; make "
                "it at least a pixel."
            )
        _check_choice(self.easing, Easing, "easing")
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
        _check_choice(self.interpolation, Interpolation, "interpolation")
        object.__setattr__(self, "keyframes", tuple(keys))

    def boxes(self, length: int) -> list[Box]:
        """The box of every frame before it is cut to the canvas; held before the first and after the last keyframe.

        Between keyframes a and b at frame t: u = (t - a) / (b - a), e = EASINGS[easing of a](u). Width and height are
        linear in e. The centre is the polyline of a's path at e, first and last point replaced by the centres of the
        keyframes; or straight; or, if smooth, the cubic Hermite curve over b - a frames at e with the tangents
        m_k = (c_{k+1} - c_{k-1}) / (f_{k+1} - f_{k-1}) per frame, one-sided at the ends.
        """
        keys = self.keyframes
        boxes = [keys[0].box] * min(keys[0].frame, length)
        for k, (a, b) in enumerate(zip(keys, keys[1:], strict=False)):
            ease, span = EASINGS[a.easing], b.frame - a.frame
            straight = self.interpolation == "linear" and not a.path
            along = (lambda e: (0.0, 0.0)) if straight else self._centres(k)
            for t in range(a.frame, min(b.frame, length)):
                e = ease((t - a.frame) / span)
                box = lerp(a.box, b.box, e)
                boxes.append(box if straight or e == 0 else _move(box, along(e)))
        boxes += [keys[-1].box] * (length - len(boxes))
        return boxes

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

    def _centres(self, k: int) -> Callable[[float], Point]:
        """The centre at the share e of the way from keyframe k to the next, along its path or the smooth curve."""
        keys = self.keyframes
        start, end = centre(keys[k].box), centre(keys[k + 1].box)
        if keys[k].path:
            inner = keys[k].path[1:-1]
            return polyline([(0.0, *start), *inner, (1.0, *end)])
        before, after = max(k - 1, 0), min(k + 2, len(keys) - 1)
        span = keys[k + 1].frame - keys[k].frame
        m0 = _tangent(keys[before], keys[k + 1], span)
        m1 = _tangent(keys[k], keys[after], span)
        return lambda e: hermite(start, m0, end, m1, e)


@dataclass(frozen=True)
class KeyframePlan:
    """The whole document. Raises ValueError, a sentence, for a keyframe behind the last frame, an id that two tracks
    share, and the bad sizes that BoxPlan refuses."""

    tracks: tuple[KeyframeTrack, ...]
    width: int
    height: int
    length: int
    fps: float = 8.0

    def __post_init__(self) -> None:
        check_canvas(self.width, self.height)
        check_length(self.length)
        check_fps(self.fps)
        tracks = self.tracks
        if not isinstance(tracks, Sequence) or not tracks or not all(isinstance(t, KeyframeTrack) for t in tracks):
            raise ValueError(f"The tracks are {show(tracks)}; give a list of at least one track.")
        if len(tracks) * self.length > MAX_BOXES:
            raise ValueError(
                f"{len(tracks)} tracks of {self.length} frames are {len(tracks) * self.length} boxes; at most "
                f"{MAX_BOXES} are read. Use a shorter length or fewer tracks."
            )
        check_ids([track.obj_id for track in tracks])
        for track in tracks:
            if (last := track.keyframes[-1].frame) >= self.length:
                raise ValueError(
                    f"Track {show(track.obj_id)} has a keyframe at frame {last}, outside the clip of {self.length} "
                    f"frames; set the length to at least {last + 1}, or move the keyframe to 0..{self.length - 1}."
                )
        object.__setattr__(self, "tracks", tuple(tracks))
        object.__setattr__(self, "fps", float(self.fps))

    @classmethod
    def from_json(cls, text: str) -> KeyframePlan:
        """Reads the document. Raises ValueError, always a sentence, for whatever is not exactly it."""
        return cls.from_dict(read_json(text, f"a keyframe document such as {EXAMPLE}"))

    @classmethod
    def from_dict(cls, value: Any) -> KeyframePlan:
        """`from_json` for text that is already parsed."""
        if isinstance(value, dict) and "version" in value and not _is(value["version"], VERSION):
            raise ValueError(
                f"The boxes say version {show(value['version'])}, and this pack reads version {VERSION}. Update the "
                "pack, or save the boxes again."
            )
        entry = _read(value, "The keyframe document", ("version", "width", "height", "length", "tracks"), ("fps",))
        tracks = [_read_track(track, i) for i, track in enumerate(_list(entry["tracks"], "The tracks"))]
        return cls(tuple(tracks), entry["width"], entry["height"], entry["length"], entry.get("fps", 8.0))

    def to_json(self) -> str:
        """The document as compact text: numbers rounded to six digits, what has its default left out."""
        tracks = []
        for track in self.tracks:
            entry = {"id": track.obj_id, **_changed(track, ("label", "interpolation"))}
            entry["keyframes"] = [_write_keyframe(key) for key in track.keyframes]
            tracks.append(entry)
        sizes = {"width": self.width, "height": self.height, "length": self.length, "fps": _short(self.fps)}
        return json.dumps({"version": VERSION, **sizes, "tracks": tracks}, separators=(",", ":"), ensure_ascii=False)

    def evaluate(self) -> BoxPlan:
        """Every frame's box, cut to the canvas; a frame whose box is (almost) outside becomes invisible (see `cut`)."""
        tracks = tuple(track.evaluate(self.length, self.width, self.height) for track in self.tracks)
        return BoxPlan(tracks, self.width, self.height, self.fps)

    @classmethod
    def from_plan(cls, plan: BoxPlan, tolerance: float = 1e-6) -> KeyframePlan:
        """Keyframes, linear in between, that evaluate to `plan`.

        tolerance: largest error of an edge, as a fraction of the canvas; the default is what six digits keep. A
            larger one needs fewer keyframes to edit; 0 gives one wherever a frame is not exactly on the line.
        """
        if not is_number(tolerance) or not 0 <= tolerance <= 1:
            raise ValueError(f"The tolerance is {show(tolerance)}; it is a fraction of the canvas, from 0 to 1.")
        tracks = tuple(_simplify(track, tolerance) for track in plan.tracks)
        return cls(tracks, plan.width, plan.height, plan.length, plan.fps)


def centre(box: Box) -> Point:
    """The middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def polyline(points: Sequence[tuple[float, float, float]]) -> Callable[[float], Point]:
    """Straight between the points (u, x, y), u ascending; held before the first and after the last."""
    shares = [point[0] for point in points]

    def at(e: float) -> Point:
        k = bisect_right(shares, e)
        if k == 0 or k == len(points):
            return points[min(k, len(points) - 1)][1:]
        (u0, x0, y0), (u1, x1, y1) = points[k - 1], points[k]
        part = (e - u0) / (u1 - u0)
        return x0 + (x1 - x0) * part, y0 + (y1 - y0) * part

    return at


def hermite(start: Point, m0: Point, end: Point, m1: Point, e: float) -> Point:
    """The cubic from start to end at e in 0..1, with the velocities m0 and m1 there (per unit of e)."""
    h01 = e * e * (3 - 2 * e)
    h10, h11 = e * (1 - e) * (1 - e), e * e * (e - 1)
    x, y = (p + (q - p) * h01 + v * h10 + w * h11 for p, q, v, w in zip(start, end, m0, m1, strict=True))
    return x, y


def _tangent(before: Keyframe, after: Keyframe, span: int) -> Point:
    """Catmull-Rom velocity at the keyframe between, per segment of `span` frames."""
    (x0, y0), (x1, y1) = centre(before.box), centre(after.box)
    scale = span / (after.frame - before.frame)
    return (x1 - x0) * scale, (y1 - y0) * scale


def _move(box: Box, to: Point) -> Box:
    """The box, its size kept, with its centre at `to`."""
    half_width, half_height = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    return to[0] - half_width, to[1] - half_height, to[0] + half_width, to[1] + half_height


def _simplify(track: BoxTrack, tolerance: float) -> KeyframeTrack:
    """The fewest keyframes that a single pass finds: each reaches as far as all frames between stay on its line."""
    boxes, shown = track.boxes, track.visible
    frames, anchor = [0], 0
    low, high = [-math.inf] * 4, [math.inf] * 4  # slopes per edge that keep every frame since the anchor in tolerance
    for t in range(1, track.length):
        slopes = [(q - p) / (t - anchor) for p, q in zip(boxes[anchor], boxes[t], strict=True)]
        on_line = all(a <= s <= b for a, s, b in zip(low, slopes, high, strict=True))
        if t - 1 > anchor and (not on_line or shown[t - 1] != shown[anchor]):
            frames.append(t - 1)
            anchor = t - 1
            low, high = [-math.inf] * 4, [math.inf] * 4
            slopes = [q - p for p, q in zip(boxes[anchor], boxes[t], strict=True)]
        reach = tolerance / (t - anchor)
        low = [max(a, s - reach) for a, s in zip(low, slopes, strict=True)]
        high = [min(b, s + reach) for b, s in zip(high, slopes, strict=True)]
    if track.length > 1:
        frames.append(track.length - 1)
    keys = tuple(Keyframe(t, boxes[t], visible=shown[t]) for t in frames)
    return KeyframeTrack(keys, track.obj_id, track.label)


def _check_choice(value: Any, choices: Any, name: str) -> None:
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
        if points and u - points[-1][0] < SMALLEST:
            raise ValueError(
                f"In the path u goes from {show(points[-1][0])} at point {i - 1} to {show(u)} at point {i}; it must "
                f"ascend by at least {SMALLEST:.5f} from point to point."
            )
        points.append((u, x, y))
    if points[0][0] != 0 or points[-1][0] != 1:
        raise ValueError(
            f"In the path u goes from {show(points[0][0])} to {show(points[-1][0])}; it must start at 0 and end at 1."
        )
    return tuple(points)


def _read(value: Any, where: str, needed: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    """`value`, if it is an object with all `needed` keys and none but these and the `optional` ones."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {show(value)}; it must be an object with {', '.join(needed)}.")
    for key in needed:
        if key not in value:
            raise ValueError(f"{where} has no {show(key)}; it needs {', '.join(needed)}.")
    for key in value:
        if key not in needed and key not in optional:
            raise ValueError(f"{where} has an unknown key {show(key)}; known are {', '.join((*needed, *optional))}.")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} are {show(value)}; give a list with at least one entry.")
    return value


def _read_track(value: Any, i: int) -> KeyframeTrack:
    entry = _read(value, f"Track {i}", ("id", "keyframes"), ("label", "interpolation"))
    keys = [
        _read_keyframe(key, f"Track {i}, keyframe {k}")
        for k, key in enumerate(_list(entry["keyframes"], f"The keyframes of track {i}"))
    ]
    try:
        return KeyframeTrack(tuple(keys), entry["id"], entry.get("label", ""), entry.get("interpolation", "linear"))
    except ValueError as error:
        raise ValueError(f"Track {i}: {error}") from None


def _read_keyframe(value: Any, where: str) -> Keyframe:
    entry = _read(value, where, ("frame", "box"), ("easing", "visible", "path"))
    try:
        if "path" in entry:
            _list(entry["path"], "The points of the path")
        return Keyframe(**entry)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == number


def _changed(value: Keyframe | KeyframeTrack, names: Sequence[str]) -> dict[str, Any]:
    """The fields of `names` that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(value)}
    return {name: getattr(value, name) for name in names if getattr(value, name) != defaults[name]}


def _write_keyframe(key: Keyframe) -> dict[str, Any]:
    entry = {"frame": key.frame, "box": [_short(v) for v in key.box], **_changed(key, ("easing", "visible"))}
    if key.path:
        entry["path"] = [[_short(v) for v in point] for point in key.path]
    return entry


def _short(value: float) -> float:
    """Six digits; a whole number without its point."""
    rounded = round(value, DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded

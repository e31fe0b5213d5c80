"""The keyframe document: boxes as somebody draws them, a few keyframes with easing and paths in between.

It is the box editor's state, what boxes are saved as, and what travels inside saved videos. Its twins in the browser
are web/js/keyframe_text.js and keyframes.js: they refuse what is refused here, and evaluate it with the formulas of
keyframe_track.py, so that the preview is what the model gets.

{"version": 1, "width": W, "height": H, "length": F, "fps": 8, "tracks": [{"id": "0", "label": "",
  "interpolation": "linear" | "smooth", "keyframes": [{"frame": 0, "box": [x1, y1, x2, y2],
  "easing": "linear" | "ease-in" | "ease-out" | "ease-in-out" | "hold", "visible": true, "path": [[u, x, y], ...]}]}]}

fps, label, interpolation, easing, visible and path may be left out. Boxes and path points are fractions of the canvas
within -1..2: a subject may enter and leave. Frames ascend. In a path u ascends from 0 to 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from .json_text import read_json
from .keyframe_track import Keyframe, KeyframeTrack
from .plan import BoxPlan, check_fps, check_ids
from .track import BoxTrack, check_canvas, check_length, is_number, show

VERSION = 1

#: Digits that a file keeps of a number, and the shortest side of a box, as a fraction of the canvas, that survives it.
DIGITS, SMALLEST = 6, 1e-5

#: Frames times tracks that a document may ask for; more is a slip, and would fill the memory.
MAX_BOXES = 1_000_000

EXAMPLE = (
    '{"version": 1, "width": 448, "height": 256, "length": 16, "tracks": [{"id": "0", "keyframes": '
    '[{"frame": 0, "box": [0.1, 0.2, 0.4, 0.8]}]}]}'
)


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
                f"There are {len(tracks)} tracks of {self.length} frames, {len(tracks) * self.length} boxes; at most "
                f"{MAX_BOXES} are read. Use a shorter length or fewer tracks."
            )
        check_ids([track.obj_id for track in tracks])
        for track in tracks:
            if (last := track.keyframes[-1].frame) >= self.length:
                raise ValueError(
                    f"Track {show(track.obj_id)} has a keyframe at frame {last}, outside the clip of {self.length} "
                    f"frames; set the length to at least {last + 1}, or move the keyframe to 0..{self.length - 1}."
                )
            for frame, (x1, y1, x2, y2) in ((key.frame, key.box) for key in track.keyframes):
                if min(x2 - x1, y2 - y1) < SMALLEST:
                    raise ValueError(
                        f"Track {show(track.obj_id)}: the box of frame {frame} is {show([x1, y1, x2, y2])}, under "
                        f"{SMALLEST:.5f} of the canvas wide or high; make it at least a pixel."
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
        return json.dumps({"version": VERSION, **sizes, "tracks": tracks}, separators=(",", ":"))

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
        points = [[_short(v) for v in point] for point in key.path]
        kept = [points[0]]
        for point in points[1:-1]:
            if kept[-1][0] < point[0] < 1:  # what is nearer than the digits tell apart is one point
                kept.append(point)
        entry["path"] = [*kept, points[-1]]
    return entry


def _short(value: float) -> float:
    """Six digits; a whole number without its point."""
    rounded = round(value, DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded

"""Boxes as people and other nodes write them: JSON text, and ComfyUI's BOUNDING_BOX value, in pixels.

A BOX is [x1, y1, x2, y2] in pixels of the canvas, or the core's {"x", "y", "width", "height"}. The readers are strict:
what they do not understand, or would have to guess, is a ValueError whose sentence names the value and the fix.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from .interpolate import (
    along_trajectory,
    check_frame,
    check_point,
    from_first_and_last,
    from_keyframes,
    from_visible,
)
from .track import Box, BoxTrack, check_canvas, check_corners, check_length, clip, is_number, pixel_edges, show

#: Longest text accepted, in characters; 1000 frames of boxes are about 40 kB.
MAX_TEXT = 1_000_000

#: A box may leave the canvas by this many pixels (somebody's rounding) and is then cut to it.
SLACK = 0.5

FORMS = (
    '{"first": BOX, "last": BOX}, [{"frame": 0, "box": BOX}, ...], {"first": BOX, "trajectory": [[x, y], ...]}, '
    "or one BOX per frame, where BOX is [x1, y1, x2, y2] in pixels"
)
DICT_KEYS = ("x", "y", "width", "height")


def parse_boxes(text: str, length: int, width: int, height: int) -> BoxTrack:
    """Box JSON -> a track of `length` frames on a canvas of width x height pixels.

    Accepted forms:
      {"first": BOX, "last": BOX}                        first and last frame, linear between
      [{"frame": 0, "box": BOX}, ...]                    keyframes; also as {"keyframes": [...]}
      {"first": BOX, "trajectory": [[x, y], ...]}        first box, then its centre along these pixels, constant speed
      [BOX, BOX, ...]                                    exactly `length` boxes
      [[BOX], [], ...]                                   the core's frames x boxes; [] hides the subject in that frame
      {"x": .., "y": .., "width": .., "height": ..}      the core's single box: the same in every frame

    Raises ValueError, always a sentence, for anything else: malformed JSON, repeated keys or frames, NaN, reversed
    corners, a box outside the canvas by more than SLACK or under one pixel, another number of boxes than `length`.
    """
    check_length(length)
    check_canvas(width, height)
    value = _load(text)
    if isinstance(value, dict):
        return _parse_dict(value, length, width, height)
    if not isinstance(value, list):
        _refuse(f"The boxes are {show(value)}, neither a list nor an object.")
    if not value:
        _refuse("The boxes are an empty list [].")
    if any(isinstance(item, dict) and ("frame" in item or "box" in item) for item in value):
        return _parse_keyframes(value, length, width, height)
    if all(map(is_number, value)):
        _refuse(f"The boxes are {show(value)}, bare numbers. For one box that stays, give it twice, as first and last.")
    return _per_frame(value, length, width, height)


def from_bounding_boxes(value: Any, width: int, height: int, length: int | None = None) -> BoxTrack:
    """ComfyUI's BOUNDING_BOX value -> a track; the inverse of `to_bounding_boxes` up to whole pixels.

    value: {"x", "y", "width", "height"} in pixels (extra keys are ignored, but obj_id and label are kept), the same
        in every frame; or a list of one such box, the same; or a list of one box per frame; or frames x boxes, where
        [] is a frame without the subject. One subject only: a frame with several boxes is refused.
    length: number of frames; None takes it from the value.

    Raises ValueError as `parse_boxes` does.
    """
    check_canvas(width, height)
    if length is not None:
        check_length(length)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"The bounding boxes are {show(value)}; connect a BOUNDING_BOX: a box with x, y, width and height, a list "
            "of them, or one list per frame."
        )
    if len(value) == 1 and isinstance(value[0], dict):
        value = value * (length or 1)
    for t, item in enumerate(value):
        for box in item if isinstance(item, list) else [item]:
            if not isinstance(box, dict):
                raise ValueError(
                    f"The bounding box of frame {t} is {show(box)}; in a BOUNDING_BOX it has x, y, width and height."
                )
    return _per_frame(value, len(value) if length is None else length, width, height)


def to_bounding_boxes(track: BoxTrack, width: int, height: int) -> list[list[dict[str, Any]]]:
    """A track -> ComfyUI's BOUNDING_BOX as frames x boxes, whole pixels; a hidden frame is [].

    Each box is {"x", "y", "width", "height", "metadata": {"frame", "obj_id"}}, with "label" where the track has one,
    and covers exactly the pixels that `rasterize` sets.
    """
    check_canvas(width, height)
    frames: list[list[dict[str, Any]]] = []
    for t, (box, visible) in enumerate(zip(track.boxes, track.visible, strict=True)):
        left, top, right, bottom = pixel_edges(box, width, height)
        entry: dict[str, Any] = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        if track.label:
            entry["label"] = track.label
        entry["metadata"] = {"frame": t, "obj_id": track.obj_id}
        frames.append([entry] if visible else [])
    return frames


def _load(text: str) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"The boxes are {show(text)}, not text; give JSON such as {FORMS}.")
    if len(text) > MAX_TEXT:
        raise ValueError(f"The box text has {len(text)} characters; at most {MAX_TEXT} are read. Use fewer keyframes.")
    if not text.strip():
        _refuse(f"The box text {text[:20]!r} is empty.")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        near = text[max(error.pos - 15, 0) : error.pos + 15]
        raise ValueError(
            f"The box text is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}, near {near!r}. "
            f"Accepted: {FORMS}."
        ) from None
    except RecursionError:
        raise ValueError(f"The box text {text[:20]!r}... is nested too deeply. Accepted: {FORMS}.") from None


def _refuse(problem: str) -> NoReturn:
    raise ValueError(f"{problem} Accepted: {FORMS}.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"The box text contains {name}; every number must be finite, in pixels.")


def _parse_int(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(
            f"The box text contains the number {digits[:18]}... of {len(digits)} digits; boxes are pixels."
        )
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"The key {show(key)} appears twice in one object of the box text; keep one of the two.")
        found[key] = value
    return found


def _parse_dict(value: dict[str, Any], length: int, width: int, height: int) -> BoxTrack:
    keys = set(value)
    if keys == {"first", "last"}:
        first, last = (_read_box(value[k], f"the {k} frame", width, height) for k in ("first", "last"))
        return from_first_and_last(first, last, length)
    if keys == {"keyframes"}:
        return _parse_keyframes(value["keyframes"], length, width, height)
    if keys == {"first", "trajectory"}:
        return _parse_trajectory(value["first"], value["trajectory"], length, width, height)
    if keys >= set(DICT_KEYS):
        return from_bounding_boxes(value, width, height, length)
    _refuse(f"The box object has the keys {show(sorted(keys))}, which is none of the known combinations.")


def _parse_keyframes(items: Any, length: int, width: int, height: int) -> BoxTrack:
    if not isinstance(items, list) or not items:
        raise ValueError(f'The keyframes are {show(items)}; give a list such as [{{"frame": 0, "box": [0, 0, 8, 8]}}].')
    found: dict[int, Box] = {}
    for i, item in enumerate(items):
        if not isinstance(item, dict) or set(item) != {"frame", "box"}:
            raise ValueError(f'Keyframe entry {i} is {show(item)}; each has exactly the keys "frame" and "box".')
        frame = item["frame"]
        check_frame(frame, length)
        if frame in found:
            raise ValueError(f"Frame {frame} has two keyframes (the second is entry {i}); keep one of them.")
        found[frame] = _read_box(item["box"], f"keyframe {frame}", width, height)
    return from_keyframes(found, length)


def _parse_trajectory(first: Any, points: Any, length: int, width: int, height: int) -> BoxTrack:
    start = _read_box(first, "the first frame", width, height)
    if not isinstance(points, list) or not points:
        raise ValueError(f"The trajectory is {show(points)}; give a list of at least one point [x, y] in pixels.")
    path: list[tuple[float, float]] = []
    for i, point in enumerate(points):
        x, y = check_point(point, f"point {i} of the trajectory")
        if not (-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK):
            raise ValueError(f"Point {i} of the trajectory, {show(point)}, lies outside the {width}x{height} canvas.")
        path.append((x / width, y / height))
    boxes = along_trajectory(start, path, length, aspect=width / height)
    for t, (x1, y1, x2, y2) in enumerate(boxes):
        pixels = [x1 * width, y1 * height, x2 * width, y2 * height]
        if not _on_canvas(pixels, width, height):
            raise ValueError(
                f"Along the trajectory {show(points)} the box {show(first)} leaves the {width}x{height} canvas: in "
                f"frame {t} it is {show(pixels)}. Keep the trajectory half a box away from the edges, or make the box "
                "smaller."
            )
    return BoxTrack(clip(boxes))


def _per_frame(entries: list[Any], length: int, width: int, height: int) -> BoxTrack:
    """One entry per frame: a BOX, or a list of at most one BOX."""
    if len(entries) != length:
        raise ValueError(
            f"There are {len(entries)} boxes for {length} frames; give exactly {length} boxes, set the length to "
            f"{len(entries)}, or give keyframes, which are interpolated."
        )
    found: dict[int, Box] = {}
    obj_id, label = "0", ""
    for t, entry in enumerate(entries):
        several = isinstance(entry, list) and all(isinstance(box, (list, dict)) for box in entry)
        boxes = entry if several else [entry]
        if len(boxes) > 1:
            raise ValueError(f"Frame {t} has {len(boxes)} boxes; one subject has one box per frame: keep one of them.")
        for box in boxes:
            found[t] = _read_box(box, f"frame {t}", width, height)
            if isinstance(box, dict):
                metadata = box.get("metadata")
                obj_id = str(metadata.get("obj_id", obj_id)) if isinstance(metadata, dict) else obj_id
                label = str(box.get("label") or label)
    if not found:
        raise ValueError(f"None of the {length} frames has a box; give at least one frame a box [x1, y1, x2, y2].")
    return from_visible(found, length, obj_id, label)


def _read_box(value: Any, where: str, width: int, height: int) -> Box:
    """A BOX in pixels -> fractions of the canvas."""
    if isinstance(value, dict):
        if not set(DICT_KEYS) <= set(value):
            raise ValueError(f"The box of {where} is {show(value)}; a box object has x, y, width and height.")
        x, y, w, h = (value[k] for k in DICT_KEYS)
        if not all(is_number(v) and math.isfinite(v) for v in (x, y, w, h)) or w <= 0 or h <= 0:
            raise ValueError(
                f"The box of {where} is {show(value)}; x, y, width and height are finite numbers, width and height "
                "above 0."
            )
        value = [x, y, x + w, y + h]
    if isinstance(value, list) and len(value) == 4 and all(map(is_number, value)):
        x1, y1, x2, y2 = value
        if (x1 > x2 or y1 > y2) and x2 > 0 and y2 > 0:
            raise ValueError(
                f"The box of {where} is {show(value)}, with reversed corners; [x1, y1, x2, y2] has x1 < x2 and y1 < "
                f'y2. If it is x, y, width, height, write it as {{"x": .., "y": .., "width": .., "height": ..}}.'
            )
    x1, y1, x2, y2 = check_corners(value, where)
    if not _on_canvas([x1, y1, x2, y2], width, height):
        raise ValueError(
            f"The box of {where}, {show([x1, y1, x2, y2])}, leaves the {width}x{height} canvas; keep x in 0..{width} "
            f"and y in 0..{height}."
        )
    if x2 - x1 < 1 or y2 - y1 < 1:
        fractions = max(x2, y2) <= 1
        raise ValueError(
            f"The box of {where}, {show([x1, y1, x2, y2])}, is under one pixel wide or high; "
            + (
                f"these look like fractions: multiply x by {width} and y by {height}."
                if fractions
                else "make it at least one pixel in both directions."
            )
        )
    return clip([(x1 / width, y1 / height, x2 / width, y2 / height)])[0]


def _on_canvas(pixels: list[float], width: int, height: int) -> bool:
    """Whether the box stays on the canvas up to SLACK; the 1e-6 is for the arithmetic."""
    x1, y1, x2, y2 = pixels
    slack = SLACK + 1e-6
    return x1 >= -slack and y1 >= -slack and x2 <= width + slack and y2 <= height + slack

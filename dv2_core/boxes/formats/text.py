"""Boxes as people type them: JSON text in pixels.

A BOX is [x1, y1, x2, y2] in pixels of the canvas, or the core's {"x", "y", "width", "height"}. The reader is strict:
what it does not understand, or would have to guess, is a ValueError whose sentence names the value and the fix.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from ..interpolate import along_trajectory, check_frame, check_point, from_first_and_last, from_keyframes
from ..json_text import read_json
from ..plan import BoxPlan
from ..track import Box, BoxTrack, check_canvas, check_length, clip, is_number, show
from . import bounding_box, document
from .common import DICT_KEYS, SLACK, Sightings, check_frames, check_plain, on_canvas, read_box, scaled

#: Keys of a trajectory, and those it may have beside them: see `along_trajectory`.
TRAJECTORY, MANNER = {"first", "trajectory"}, {"times", "scale", "interpolation"}

FORMS = (
    '{"first": BOX, "last": BOX}, [{"frame": 0, "box": BOX}, ...], {"first": BOX, "trajectory": [[x, y], ...]}, '
    "or one BOX per frame, where BOX is [x1, y1, x2, y2] in pixels"
)


def parse_boxes(text: str, length: int, width: int, height: int) -> BoxTrack:
    """Box JSON of one subject -> its track of `length` frames on a canvas of width x height pixels.

    Accepted forms:
      {"first": BOX, "last": BOX}                        first and last frame, linear between
      [{"frame": 0, "box": BOX}, ...]                    keyframes; also as {"keyframes": [...]}
      {"first": BOX, "trajectory": [[x, y], ...]}        first box, then its centre along these pixels, constant speed;
                                                         "times", "scale" and "interpolation" as `along_trajectory`
      [BOX, BOX, ...]                                    exactly `length` boxes
      [[BOX], [], ...]                                   the core's frames x boxes; [] hides the subject in that frame
      {"x": .., "y": .., "width": .., "height": ..}      the core's single box: the same in every frame
      {"version": 1, ..., "tracks": [...]}               the keyframe document of one track, `length` frames long

    Raises ValueError, always a sentence, for anything else: malformed JSON, repeated keys or frames, NaN, reversed
    corners, a box outside the canvas by more than SLACK or under one pixel, another number of boxes than `length`.
    """
    check_length(length)
    return bounding_box.only_track(_read(read_json(text, FORMS), width, height, length, 8.0))


def read(
    value: str | list[Any] | dict[str, Any], width: int, height: int, length: int | None = None, fps: float = 8.0
) -> BoxPlan:
    """`parse_boxes` for text or for what its JSON says; the length may be left out where every frame has a box."""
    return _read(read_json(value, FORMS) if isinstance(value, str) else value, width, height, length, fps)


def _read(value: Any, width: int, height: int, length: int | None, fps: float) -> BoxPlan:
    check_canvas(width, height)
    check_plain(value)
    if isinstance(value, dict) and document.is_document(value):
        return document.read(value, width, height, length)
    if length is None and isinstance(value, list) and not _are_keyframes(value):
        length = len(value)
    if length is None:
        raise ValueError(f"The boxes {show(value)} do not say for how many frames they are; give the video's length.")
    return BoxPlan((_parse(value, length, width, height),), width, height, fps)


def write(plan: BoxPlan) -> str:
    """One subject -> [[BOX], [], ...], one entry per frame, in pixels to a thousandth; a hidden frame is []."""
    track = bounding_box.only_track(plan)
    shown = zip(track.boxes, track.visible, strict=True)
    return json.dumps([[scaled(box, plan.width, plan.height)] if visible else [] for box, visible in shown])


def _parse(value: Any, length: int, width: int, height: int) -> BoxTrack:
    check_length(length)
    if isinstance(value, dict):
        return _parse_dict(value, length, width, height)
    if not isinstance(value, list):
        _refuse(f"The boxes are {show(value)}, neither a list nor an object.")
    if not value:
        _refuse("The boxes are an empty list [].")
    if _are_keyframes(value):
        return _parse_keyframes(value, length, width, height)
    if all(map(is_number, value)):
        _refuse(f"The boxes are {show(value)}, bare numbers. For one box that stays, give it twice, as first and last.")
    return _per_frame(value, length, width, height)


def _are_keyframes(value: list[Any]) -> bool:
    return any(isinstance(item, dict) and ("frame" in item or "box" in item) for item in value)


def _refuse(problem: str) -> NoReturn:
    raise ValueError(f"{problem} Accepted: {FORMS}.")


def _parse_dict(value: dict[str, Any], length: int, width: int, height: int) -> BoxTrack:
    keys = set(value)
    if keys == {"first", "last"}:
        first, last = (read_box(value[k], f"the {k} frame", width, height) for k in ("first", "last"))
        return from_first_and_last(first, last, length)
    if keys == {"keyframes"}:
        return _parse_keyframes(value["keyframes"], length, width, height)
    if TRAJECTORY <= keys <= TRAJECTORY | MANNER:
        return _parse_trajectory(value, length, width, height)
    if keys >= set(DICT_KEYS):
        return bounding_box.from_bounding_boxes(value, width, height, length)
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
        found[frame] = read_box(item["box"], f"keyframe {frame}", width, height)
    return from_keyframes(found, length)


def _parse_trajectory(value: dict[str, Any], length: int, width: int, height: int) -> BoxTrack:
    first, points = value["first"], value["trajectory"]
    start = read_box(first, "the first frame", width, height)
    if not isinstance(points, list) or not points:
        raise ValueError(f"The trajectory is {show(points)}; give a list of at least one point [x, y] in pixels.")
    path: list[tuple[float, float]] = []
    for i, point in enumerate(points):
        x, y = check_point(point, f"point {i} of the trajectory")
        if not (-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK):
            raise ValueError(f"Point {i} of the trajectory, {show(point)}, lies outside the {width}x{height} canvas.")
        path.append((x / width, y / height))
    manner = {key: value[key] for key in MANNER if key in value}
    boxes = along_trajectory(start, path, length, aspect=width / height, **manner)
    for t, (x1, y1, x2, y2) in enumerate(boxes):
        pixels = [x1 * width, y1 * height, x2 * width, y2 * height]
        if not on_canvas(pixels, width, height):
            raise ValueError(
                f"Along the trajectory {show(points)} the box {show(first)} leaves the {width}x{height} canvas: in "
                f"frame {t} it is {show(pixels)}. Keep the trajectory half a box away from the edges, or make the box "
                "smaller."
            )
    return BoxTrack(clip(boxes))


def _per_frame(entries: Sequence[Any], length: int, width: int, height: int) -> BoxTrack:
    """One entry per frame: a BOX, or a list of at most one BOX."""
    if any(isinstance(box, dict) for entry in entries for box in (entry if isinstance(entry, list) else [entry])):
        return bounding_box.only_track(bounding_box.read_frames(entries, length, width, height))
    check_frames(len(entries), length)
    sightings = Sightings()
    for t, entry in enumerate(entries):
        boxes = entry if isinstance(entry, list) and all(isinstance(box, list) for box in entry) else [entry]
        if len(boxes) > 1:
            raise ValueError(f"Frame {t} has {len(boxes)} boxes; one subject has one box per frame: keep one of them.")
        for box in boxes:
            sightings.add("0", t, read_box(box, f"frame {t}", width, height))
    return sightings.plan(length, width, height, 8.0).tracks[0]

"""Formats of points without a size: the core's TRACKS, and the STRING that KJNodes' editors write and ATI reads.

Facts: `comfy_extras/nodes_wanmove.py` (TRACKS) and `nodes_wan.py` (parse_json_tracks) of the core;
kijai/ComfyUI-KJNodes `nodes/curve_nodes.py`. Points are in pixels. Each track of points is read as the centre of one
subject's box, whose size has to be given; written, boxes lose their sizes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from ..json_text import read_json
from ..plan import BoxPlan
from ..track import BoxTrack, check_canvas, cut, is_number, show
from .common import check_frames, check_total, is_finite, plain, shown

ACCEPTED = 'tracks of points: [[{"x": 0, "y": 0}, ...], ...], one list per subject, one point per frame, in pixels'


def read_tracks(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0,
                size: Sequence[float] | None = None) -> BoxPlan:  # fmt: skip
    """TRACKS {"track_path": [T, N, 2] pixels, "track_visibility": [T, N] or [T, 1], optional} -> N subjects.

    size: (width, height) in pixels of the boxes around the points; where such a box leaves the canvas it is cut, and
        where it lies outside (see `cut`) its frame is hidden.

    Raises ValueError, a sentence, for anything else.
    """
    check_canvas(width, height)
    if not isinstance(value, dict) or not hasattr(value.get("track_path"), "shape"):
        raise ValueError(f'The TRACKS are {shown(value)}; they have a tensor "track_path" [frames, tracks, 2].')
    path, shape = value["track_path"], tuple(value["track_path"].shape)
    if len(shape) != 3 or shape[2] != 2 or 0 in shape:
        raise ValueError(f"The track_path has shape {list(shape)}; it must be [frames, tracks, 2], in pixels.")
    frames, count = shape[:2]
    check_total(frames, count)
    seen = value.get("track_visibility")
    if seen is None:
        visible = [[True] * count] * frames
    elif tuple(getattr(seen, "shape", ())) in ((frames, count), (frames, 1)):
        rows = [[bool(flag) for flag in row] for row in plain(seen)]
        visible = [row * count for row in rows] if count > len(rows[0]) else rows
    else:
        raise ValueError(
            f"The track_visibility is {shown(seen)}; for a track_path of shape {list(shape)} it must be "
            f"[{frames}, {count}]."
        )
    points = plain(path)
    tracks = [[points[t][n] for t in range(frames)] for n in range(count)]
    return _plan(tracks, [[row[n] for row in visible] for n in range(count)], width, height, length, fps, size)


def write_tracks(plan: BoxPlan) -> dict[str, torch.Tensor]:
    """The centres as TRACKS: "track_path" [T, N, 2] float32 pixels, "track_visibility" [T, N] bool."""
    tracks = [_centres(track, plan) for track in plan.tracks]
    visible = [track.visible for track in plan.tracks]
    return {"track_path": torch.tensor(tracks).transpose(0, 1).contiguous(),
            "track_visibility": torch.tensor(visible).T.contiguous()}  # fmt: skip


def read_string(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0,
                size: Sequence[float] | None = None) -> BoxPlan:  # fmt: skip
    """JSON of one track [{"x", "y"}, ...] or of several [[...], ...], or a list of such texts -> a subject each.

    size: as for `read_tracks`. Single instead of double quotes are read, as the core does, and nothing else is guessed.
    """
    check_canvas(width, height)
    if isinstance(value, str):
        value = load(value)
    elif isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        value = [load(text) for text in value]
    if isinstance(value, list) and value and all(isinstance(point, dict) for point in value):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(track, list) and track for track in value):
        raise ValueError(f"The points are {shown(value)}; give {ACCEPTED}.")
    for n, track in enumerate(value):
        if len(track) != len(value[0]):
            raise ValueError(
                f"Track 0 has {len(value[0])} points and track {n} has {len(track)}; give every track one point per "
                "frame."
            )
    pairs = [[_point(point, n, t) for t, point in enumerate(track)] for n, track in enumerate(value)]
    return _plan(pairs, [[True] * len(track) for track in pairs], width, height, length, fps, size)


def write_string(plan: BoxPlan) -> str:
    """The centres as JSON, one track per subject, to a thousandth of a pixel. Points are never hidden."""
    tracks = [[{"x": round(x, 3), "y": round(y, 3)} for x, y in _centres(track, plan)] for track in plan.tracks]
    return json.dumps(tracks)


def load(text: str) -> Any:
    """The JSON of a points string, which may have single quotes."""
    if isinstance(text, str) and "'" in text and '"' not in text:
        text = text.replace("'", '"')
    return read_json(text, ACCEPTED)


def _point(point: Any, n: int, t: int) -> tuple[Any, Any]:
    if not isinstance(point, dict) or set(point) != {"x", "y"}:
        raise ValueError(f'Point {t} of track {n} is {shown(point)}; a point is {{"x": .., "y": ..}} in pixels.')
    return point["x"], point["y"]


def _centres(track: BoxTrack, plan: BoxPlan) -> list[tuple[float, float]]:
    return [((x1 + x2) / 2 * plan.width, (y1 + y2) / 2 * plan.height) for x1, y1, x2, y2 in track.boxes]


def _plan(tracks: list[list[Any]], visible: list[list[bool]], width: int, height: int, length: int | None, fps: float,
          size: Sequence[float] | None) -> BoxPlan:  # fmt: skip
    length = check_frames(len(tracks[0]), length, "points")
    check_total(length, len(tracks))
    w, h = _check_size(size, width, height)
    made = []
    for n, points in enumerate(tracks):
        boxes, seen = [], []
        for t, (x, y) in enumerate(points):
            if not (is_finite(x) and is_finite(y)) or max(abs(x), abs(y)) > 1e6:
                raise ValueError(
                    f"Point {t} of track {n} is {show([x, y])}; a point is two finite numbers, in pixels of the canvas."
                )
            x, y = float(x) / width, float(y) / height
            box, inside = cut((x - w / 2, y - h / 2, x + w / 2, y + h / 2), width, height)
            boxes.append(box)
            seen.append(visible[n][t] and inside)
        made.append(BoxTrack(tuple(boxes), tuple(seen), str(n)))
    return BoxPlan(tuple(made), width, height, fps)


def _check_size(size: Sequence[float] | None, width: int, height: int) -> tuple[float, float]:
    """The box size in pixels -> fractions of the canvas."""
    if size is None:
        raise ValueError("Tracks of points have no box size; give the width and height of the box around each point.")
    pair = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2 and all(map(is_number, size))
    if not pair or not all(map(is_finite, size)) or not (1 <= size[0] <= width and 1 <= size[1] <= height):
        raise ValueError(
            f"The box size is {shown(size)}; give (width, height) in pixels, from 1x1 to the {width}x{height} canvas."
        )
    return float(size[0]) / width, float(size[1]) / height

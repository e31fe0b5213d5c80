"""ComfyUI's BOUNDING_BOX value: boxes as {"x", "y", "width", "height"} objects in pixels, one frame or many.

Facts: `comfy_api/latest/_io.py` of the core (the type) and its nodes SAM3_Detect, RTDETR_detect, DrawBBoxes and
CreateBoundingBoxes. Video nodes pass frames x boxes, and [] is a frame in which nothing was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..linking import from_detections
from ..plan import BoxPlan
from ..track import Box, BoxTrack, check_canvas, check_length, pixel_edges, show
from .common import DICT_KEYS, Sightings, check_frames, check_total, hold, read_box, read_id, read_numbers, shown

#: How far outside the canvas, as a fraction of it, a detector may see a box that is then cut to it.
OVERSHOOT = 0.05


def read(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0) -> BoxPlan:
    """A BOUNDING_BOX value -> the plan of its subjects, who are told apart by metadata obj_id.

    value: {"x", "y", "width", "height"} in pixels, the same in every frame; or a list of one such box, the same; or a
        list of boxes: the subjects of every frame if each has an id of its own, else one box per frame; or frames x
        boxes, where [] is a frame without subjects. Other keys are ignored, but label and metadata obj_id are kept.
    length: number of frames; None takes it from the value.

    Raises ValueError, a sentence, for anything else, and for several boxes in a frame that do not name their subject.
    """
    check_canvas(width, height)
    if length is not None:
        check_length(length)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"The bounding boxes are {shown(value)}; connect a BOUNDING_BOX: a box with x, y, width and height, a list "
            "of them, or one list per frame."
        )
    if all(isinstance(box, dict) for box in value):
        ids = [_named(box) for box in value]
        if len(value) == 1:
            value = value * (length or 1)
        elif None not in ids and len(set(map(str, ids))) == len(ids):
            value = hold(value, length)
    for t, item in enumerate(value):
        for box in item if isinstance(item, list) else [item]:
            if not isinstance(box, dict):
                raise ValueError(
                    f"The bounding box of frame {t} is {shown(box)}; in a BOUNDING_BOX it has x, y, width and height."
                )
    return read_frames(value, len(value) if length is None else length, width, height, fps)


def read_detections(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0) -> BoxPlan:
    """Frames x boxes as a detector finds them -> one subject: the surest box of all, followed by overlap.

    value: one list of {"x", "y", "width", "height", "score"} in pixels per frame, [] where nothing is found; without
        a score, a box counts as sure. Boxes are cut to the canvas (up to OVERSHOOT). See `from_detections`.

    Raises ValueError, a sentence, for anything else.
    """
    check_canvas(width, height)
    if not isinstance(value, list) or not value or not all(isinstance(found, list) for found in value):
        raise ValueError(f"The detections are {shown(value)}; give one list of boxes per frame, [] for none.")
    check_frames(len(value), length)
    check_total(len(value), max(len(found) for found in value))
    frames: list[list[tuple[Box, Any]]] = []
    for t, found in enumerate(value):
        frames.append([])
        for box in found:
            if not isinstance(box, dict) or not all(key in box for key in DICT_KEYS):
                raise ValueError(f"A detection of frame {t} is {shown(box)}; it has x, y, width, height and a score.")
            x, y, w, h = read_numbers([box[key] for key in DICT_KEYS], f"frame {t}")
            corners = (x / width, y / height, (x + w) / width, (y + h) / height)
            if min(corners) < -OVERSHOOT or max(corners) > 1 + OVERSHOOT:
                raise ValueError(
                    f"A detection of frame {t} is {shown(box)}, outside the {width}x{height} canvas; give the width "
                    "and height of the frames that the detector saw."
                )
            frames[-1].append((corners, box.get("score", 1.0)))
    return BoxPlan((from_detections(frames),), width, height, fps)


def write(plan: BoxPlan) -> list[list[dict[str, Any]]]:
    """Frames x boxes in whole pixels; in a frame, the visible subjects in the order of the plan.

    Each box is {"x", "y", "width", "height", "metadata": {"frame", "obj_id"}}, with "label" where the track has one,
    and covers exactly the pixels that `rasterize` sets.
    """
    frames: list[list[dict[str, Any]]] = [[] for _ in range(plan.length)]
    for track in plan.tracks:
        for t, (box, visible) in enumerate(zip(track.boxes, track.visible, strict=True)):
            if not visible:
                continue
            left, top, right, bottom = pixel_edges(box, plan.width, plan.height)
            entry: dict[str, Any] = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            if track.label:
                entry["label"] = track.label
            entry["metadata"] = {"frame": t, "obj_id": track.obj_id}
            frames[t].append(entry)
    return frames


def from_bounding_boxes(value: Any, width: int, height: int, length: int | None = None) -> BoxTrack:
    """The BOUNDING_BOX of one subject -> its track; the inverse of `to_bounding_boxes` up to whole pixels.

    Raises ValueError as `read` does, and for several subjects.
    """
    return only_track(read(value, width, height, length))


def to_bounding_boxes(track: BoxTrack, width: int, height: int) -> list[list[dict[str, Any]]]:
    """A track -> ComfyUI's BOUNDING_BOX, as `write` does it."""
    return write(BoxPlan((track,), width, height))


def only_track(plan: BoxPlan) -> BoxTrack:
    """The track of a plan with one. Raises ValueError, naming the ids, for a plan with several."""
    if len(plan.tracks) > 1:
        ids = ", ".join(show(track.obj_id) for track in plan.tracks)
        raise ValueError(
            f"The boxes are of {len(plan.tracks)} subjects, {shown(ids)}, and there is room for one here; name the one "
            "to use."
        )
    return plan.track()


def read_frames(entries: Sequence[Any], length: int, width: int, height: int, fps: float = 8.0) -> BoxPlan:
    """One entry per frame: a box (object or [x1, y1, x2, y2] in pixels) or a list of boxes."""
    check_frames(len(entries), length)
    sightings = Sightings()
    ids: set[str | None] = set()
    fullest = 0
    frames: list[list[tuple[Any, Box, str]]] = []
    for t, entry in enumerate(entries):
        several = isinstance(entry, list) and all(isinstance(box, (list, dict)) for box in entry)
        found = []
        for box in entry if several else [entry]:
            name, label = (_named(box), box.get("label")) if isinstance(box, dict) else (None, "")
            label = label if isinstance(label, str) else ""
            found.append((name, read_box(box, f"frame {t}", width, height), label))
            ids.add(name if name is None else str(name))
        frames.append(found)
        fullest = max(fullest, t, key=lambda n: len(frames[n]))
    if None in ids and len(frames[fullest]) > 1:
        raise ValueError(
            f"Frame {fullest} has {len(frames[fullest])} boxes, and not every box says whose it is; one subject has "
            "one box per frame: keep one of them, give each box a metadata obj_id, or, for what a detector found, "
            "choose the format detections."
        )
    if None in ids and len(ids) > 1:
        named = sorted(name for name in ids if name is not None)
        raise ValueError(
            f"Some boxes have a metadata obj_id ({shown(named)}) and others have none; give every box one, or none."
        )
    for t, found in enumerate(frames):
        for name, box, label in found:
            sightings.add("0" if name is None else read_id(name, f"frame {t}"), t, box, label)
    return sightings.plan(length, width, height, fps)


def _named(box: dict[str, Any]) -> Any:
    """The obj_id in a box's metadata, as it stands; None where there is none."""
    metadata = box.get("metadata")
    return metadata.get("obj_id") if isinstance(metadata, dict) else None

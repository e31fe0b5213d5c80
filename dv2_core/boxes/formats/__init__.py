"""Every format that boxes come in and go out: one module per family, one reader and one writer for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..json_text import read_json
from ..plan import BoxPlan
from ..track import check_canvas, check_length, is_number, show
from . import bbox, bounding_box, csv_table, davis, document, elements, mask, omni, points, segs, text
from .bounding_box import from_bounding_boxes, to_bounding_boxes
from .common import DICT_KEYS, check_plain, plain, shown
from .folder import read_text
from .text import parse_boxes

__all__ = [
    "FORMATS",
    "Format",
    "detect",
    "from_bounding_boxes",
    "own_size",
    "parse_boxes",
    "read_any",
    "to_bounding_boxes",
    "write",
]


@dataclass(frozen=True)
class Format:
    """One way in which boxes are written down.

    read: (value, width, height, length, fps) -> BoxPlan; with `sized`, also size, the box size around points.
    write: (plan) -> value, None where another name of the family writes; with `folder`, (plan, folder) -> folder.
    """

    what: str
    read: Callable[..., BoxPlan]
    write: Callable[..., Any] | None
    folder: bool = False
    sized: bool = False


FORMATS: Mapping[str, Format] = {
    "keyframes": Format("keyframe document (JSON)", document.read, document.write),
    "text": Format("JSON text in pixels, one subject", text.read, text.write),
    "bounding_box": Format("ComfyUI's BOUNDING_BOX", bounding_box.read, bounding_box.write),
    "detections": Format("BOUNDING_BOX of a detector, one subject of it", bounding_box.read_detections, None),
    "bbox": Format("BBOX whose reading is clear", bbox.read, None),
    "bbox_xyxy": Format("BBOX x1, y1, x2, y2", partial(bbox.read, reading="xyxy"), partial(bbox.write, reading="xyxy")),
    "bbox_xywh": Format("BBOX x, y, width, height", partial(bbox.read, reading="xywh"),
                        partial(bbox.write, reading="xywh")),
    "bbox_dict": Format("BBOX startX, startY, endX, endY", partial(bbox.read, reading="dict"),
                        partial(bbox.write, reading="dict")),
    "elements": Format("ARRAY of elements, grid of 0 to 1000, y first", elements.read, elements.write),
    "segs": Format("SEGS, one per frame", segs.read, segs.write),
    "segs_frames": Format("SEGS, one SEG per frame", partial(segs.read, several="frames"), None),
    "segs_subjects": Format("SEGS, one SEG per subject", partial(segs.read, several="subjects"), None),
    "tracks": Format("ComfyUI's TRACKS (points)", points.read_tracks, points.write_tracks, sized=True),
    "points": Format("KJNodes / ATI string (points)", points.read_string, points.write_string, sized=True),
    "mask": Format("MASK, one subject", mask.read, mask.write),
    "csv": Format("CSV", csv_table.read, csv_table.write),
    "omni": Format("DreamVideo-Omni case folder", omni.read, omni.write, folder=True, sized=True),
    "davis": Format("folder of mask PNGs (DAVIS)", davis.read, davis.write, folder=True),
}  # fmt: skip

#: What four bare numbers are until it is known whether they are a BBOX or our own text form.
NUMBERS = "numbers"

KINDS = (
    "BOUNDING_BOX, BBOX, elements, SEGS, TRACKS, a MASK, text (keyframe document, boxes in pixels, KJ / ATI points, "
    "CSV), or a file or folder of boxes"
)


def read_any(value: Any, width: int, height: int, length: int | None = None, fmt: str = "auto", fps: float = 8.0,
             size: Sequence[float] | None = None) -> BoxPlan:  # fmt: skip
    """Boxes in any of FORMATS -> a plan on a canvas of width x height pixels.

    value: what a socket carries; a text; or a Path to a file or folder. A text is never taken for a path.
    length: frames of the video. A value for another number of frames is refused; None takes the value's own.
    fmt: "auto" tells the format from the value; a name of FORMATS chooses it.
    fps: for the formats that do not say it.
    size: (width, height) in pixels of the box around each point of "tracks", "points" and a case with points only.

    Raises ValueError, always a sentence, for what is not exactly one of these.
    """
    check_canvas(width, height)
    if length is not None:
        check_length(length)
    if fmt != "auto" and fmt not in FORMATS:
        raise ValueError(f"The format {show(fmt)} is not known; choose auto, {', '.join(FORMATS)}.")
    if isinstance(value, Path) and not os.path.isdir(value):
        value = read_text(value)
    if isinstance(value, str):
        value, fmt = _parse(value, fmt)
    check_plain(value)
    if fmt == "auto":
        fmt = detect(value)
    form = FORMATS[fmt]
    if form.folder and not isinstance(value, Path) and not (fmt == "omni" and isinstance(value, dict)):
        raise ValueError(f"The format {fmt} is a folder, and the value is {shown(value)}; choose the folder to read.")
    if isinstance(value, Path) and not form.folder:
        raise ValueError(f"The format {fmt} is no folder, but {value.name} is one; choose a file, or omni or davis.")
    return form.read(value, width, height, length, fps, **({"size": size} if form.sized else {}))


def write(plan: BoxPlan, fmt: str, folder: Path | None = None, track: str | None = None) -> Any:
    """The plan in a format of FORMATS. docs/box-formats.md says what each of them loses.

    folder: a new one, for the formats that are folders. track: the id of the one track to write, "" for the first;
        None writes all of them, which ValueError refuses where a format holds one subject.
    """
    form = FORMATS.get(fmt)
    if form is None or form.write is None:
        names = ", ".join(name for name, known in FORMATS.items() if known.write)
        raise ValueError(f"The format {show(fmt)} cannot be written; choose {names}.")
    if track is not None:
        plan = replace(plan, tracks=(plan.track(track),))
    return form.write(plan, folder) if form.folder else form.write(plan)


def own_size(folder: Path) -> tuple[int, int] | None:
    """The (width, height) in pixels that a folder of boxes is for, None where it does not say it.

    Raises ValueError, a sentence, for a folder that is neither a case nor mask pictures.
    """
    return omni.own_size(folder) if detect(folder) == "omni" else davis.own_size(folder)


def detect(value: Any) -> str:
    """The name in FORMATS of a socket's value or of a folder. Raises ValueError if none fits."""
    if isinstance(value, Path):
        return "omni" if os.path.lexists(value / "metadata.json") else "davis"
    if hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) == 3:
        return "mask"
    kind = _kind(value)
    if kind is None:
        what = shown(value) if isinstance(value, (list, tuple, dict)) or is_number(value) else type(value).__name__
        raise ValueError(f"What {what} means cannot be told; give {KINDS}, or choose the format.")
    return "bbox" if kind == NUMBERS else kind


def _parse(value: str, fmt: str) -> tuple[Any, str]:
    """A text -> what its format reads, and that format."""
    if fmt == "csv" or (fmt == "auto" and csv_table.is_csv(value)):
        return value, "csv"
    if fmt == "points":
        return points.load(value), fmt
    if fmt == "auto" and "'" in value and '"' not in value:  # what only point nodes write, and the core reads
        try:
            single = points.load(value)
        except ValueError:
            single = None
        if single is not None and _kind(single) == "points":
            return single, "points"
    parsed = read_json(value, text.FORMS)
    if fmt == "auto":
        kind = _kind(parsed)
        fmt = "text" if kind in (None, NUMBERS) else kind  # bare numbers in a text are corners: our own form
    return parsed, fmt


def _kind(value: Any, depth: int = 0) -> str | None:
    """The format of an object or of nested lists of them; that of the first that tells."""
    value = plain(value)
    if isinstance(value, dict):
        return _kind_of_object(value)
    if not isinstance(value, (list, tuple)) or depth > 2:
        return None
    if segs.is_segs(value):
        return "segs"
    if value and all(map(is_number, value)):
        return NUMBERS
    if value and all(isinstance(item, str) for item in value):
        return "points"
    return next((kind for item in value if (kind := _kind(item, depth + 1))), None)


def _kind_of_object(value: dict[Any, Any]) -> str | None:
    if document.is_document(value):
        return "keyframes"
    if "track_path" in value:
        return "tracks"
    if "frames_info" in value:
        return "omni"
    if "bbox" in value:
        return "elements"
    if all(key in value for key in DICT_KEYS):
        return "bounding_box"
    if "startX" in value:
        return "bbox"
    return "points" if set(value) == {"x", "y"} else None

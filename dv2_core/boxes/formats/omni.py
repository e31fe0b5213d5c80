"""Case folders of DreamVideo-Omni: metadata.json with every frame's boxes, and tracks/*.npy with points.

Facts: ali-vilab/DreamVideo-Omni `omni_case_loader.py` and `examples/`. frames_info[t]["bboxes"] holds {"bbox": [x1, y1,
x2, y2], "obj_id": "0"} in pixels of width x height; paths.tracks names pred_tracks.npy [1, T, N, 2] in pixels and
visibility.npy [1, T, N]; obj_track_idx says which of the N points is each subject's, in the order of their ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..json_text import read_json
from ..keyframes import MAX_BOXES
from ..plan import BoxPlan
from ..track import check_canvas, pixel_edges, show
from . import points
from .common import Sightings, check_frames, check_own_size, read_box, read_id, read_numbers, shown
from .folder import check_file, inside, new_folder, read_text

#: Most bytes of a file of points: MAX_BOXES in double precision and a header.
MAX_BYTES = 16 * MAX_BOXES + 10_000

ACCEPTED = 'a case\'s metadata {"width": .., "height": .., "frames_info": [{"bboxes": [..]}, ..]}'


def read(value: Path | str | dict[str, Any], width: int, height: int, length: int | None = None, fps: float = 8.0,
         size: Sequence[float] | None = None) -> BoxPlan:  # fmt: skip
    """A case folder, or its metadata as text or parsed -> the plan of its subjects, fractions of the case's own size.

    A case without a size has that of the canvas. A case without frames_info, but with tracks, gives boxes of `size`
    (width, height in its pixels) around its points, as TRACKS do.

    Raises ValueError, a sentence, for anything else, a file outside the folder, pickled or oversized arrays.
    """
    check_canvas(width, height)
    folder = value if isinstance(value, Path) else None
    data = _metadata(value)
    own = check_own_size((data.get("width", width), data.get("height", height)), "The case's metadata")
    frames = data.get("frames_info")
    if frames is None or frames == []:
        plan = _from_points(folder, data, *own, length, fps, size)
        return BoxPlan(plan.tracks, width, height, fps)
    if not isinstance(frames, list):
        raise ValueError(f"frames_info is {show(frames)}; it must be a list with one entry per frame.")
    check_frames(len(frames), length, "frames in frames_info")
    sightings = Sightings()
    for t, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("bboxes", []), list):
            raise ValueError(f'Frame {t} of frames_info is {show(frame)}; it must be {{"bboxes": [..]}}.')
        if frame.get("frame_idx", t) != t:
            raise ValueError(
                f"Entry {t} of frames_info has frame_idx {show(frame['frame_idx'])}; list the frames in order, from 0, "
                "without gaps."
            )
        for entry in frame.get("bboxes", []):
            if not isinstance(entry, dict) or not {"bbox", "obj_id"} <= set(entry):
                raise ValueError(f"A box of frame {t} is {show(entry)}; each has bbox [x1, y1, x2, y2] and obj_id.")
            label = entry.get("label")
            box = read_box(read_numbers(entry["bbox"], f"frame {t}"), f"frame {t}", *own)
            sightings.add(read_id(entry["obj_id"], f"frame {t}"), t, box, label if isinstance(label, str) else "")
    return sightings.plan(len(frames), width, height, fps)


def own_size(folder: Path) -> tuple[int, int] | None:
    """The (width, height) that a case states, None where it does not. Raises ValueError as `read` does."""
    data = _metadata(folder)
    stated = "width" in data and "height" in data
    return check_own_size((data["width"], data["height"]), "The case's metadata") if stated else None


def write(plan: BoxPlan, folder: Path | None) -> Path:
    """A new case folder: metadata.json in whole pixels, and the boxes' centres as tracks; the folder.

    Caption and reference images are left to you: the caption is empty.
    """
    folder = new_folder(folder)
    frames: list[dict[str, Any]] = [{"frame_idx": t, "bboxes": []} for t in range(plan.length)]
    for track in plan.tracks:
        label = {"label": track.label} if track.label else {}
        for t, (box, visible) in enumerate(zip(track.boxes, track.visible, strict=True)):
            if visible:
                corners = list(pixel_edges(box, plan.width, plan.height))
                frames[t]["bboxes"].append({"bbox": corners, "obj_id": track.obj_id, **label})
    names = {"tracks": "tracks/pred_tracks.npy", "visibility": "tracks/visibility.npy"}
    data = {
        "caption": "",
        "mode": "single_object" if len(plan.tracks) == 1 else "multiple_object",
        "width": plan.width,
        "height": plan.height,
        "paths": {"tracks": names},
        "obj_track_idx": _slots(plan),
        "frames_info": frames,
    }
    tracks = points.write_tracks(plan)
    (folder / "tracks").mkdir()
    np.save(folder / names["tracks"], tracks["track_path"][None].numpy(), allow_pickle=False)
    np.save(folder / names["visibility"], tracks["track_visibility"][None].numpy(), allow_pickle=False)
    (folder / "metadata.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return folder


def _metadata(value: Path | str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(value, Path):
        value = read_text(value / "metadata.json")
    data = read_json(value, ACCEPTED) if isinstance(value, str) else value
    if not isinstance(data, dict):
        raise ValueError(f"The case's metadata is {shown(data)}; give {ACCEPTED}.")
    return data


def _slots(plan: BoxPlan) -> list[int]:
    """The position of each visible subject's track, in that repository's order of ids: numbers first, then texts."""

    def order(n: int) -> tuple[int, int, str]:
        name = plan.tracks[n].obj_id
        whole = name.isascii() and name.isdigit()
        return (0, int(name), "") if whole else (1, 0, name)

    return sorted((n for n, track in enumerate(plan.tracks) if any(track.visible)), key=order)


def _from_points(folder: Path | None, data: dict[str, Any], width: int, height: int, length: int | None, fps: float,
                 size: Sequence[float] | None) -> BoxPlan:  # fmt: skip
    paths = data.get("paths")
    names = paths.get("tracks") if isinstance(paths, dict) else None
    if folder is None or not isinstance(names, dict) or "tracks" not in names:
        raise ValueError(f"The case has neither frames_info nor a file of tracks, so no boxes. Expected {ACCEPTED}.")
    value = {"track_path": _load(folder, names["tracks"], 4)}
    if "visibility" in names:
        value["track_visibility"] = _load(folder, names["visibility"], 3)
    return points.read_tracks(value, width, height, length, fps, size)


def _load(folder: Path, name: object, dimensions: int) -> torch.Tensor:
    """An array of a case, a leading dimension of 1 removed."""
    file = check_file(inside(folder, name), MAX_BYTES)
    try:
        # Mapped, not read: a header that promises more than the file holds is then refused before memory is taken.
        array = np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # a damaged header makes numpy raise whatever its parts do
        raise ValueError(f"{folder.name}/{file.name} is no array ({type(error).__name__}); write it again.") from None
    if array.ndim == dimensions and array.shape[0] == 1:
        array = array[0]
    if array.ndim != dimensions - 1 or array.dtype.kind not in "biuf" or array.size > 2 * MAX_BOXES:
        raise ValueError(
            f"{folder.name}/{file.name} has the shape {list(array.shape)} and the type {array.dtype}; it must be an "
            f"array of at most {2 * MAX_BOXES} numbers with {dimensions} dimensions, the first 1."
        )
    return torch.from_numpy(np.array(array, dtype=np.float64))

"""The core's ARRAY of picture elements: boxes on a grid of 0 to 1000, y first.

Facts: the core's CreateBoundingBoxes. An element is {"type": "obj", "bbox": [ymin, xmin, ymax, xmax], "desc": ...}; a
list of them describes one picture. For videos this reader and writer use one list per frame.
"""

from __future__ import annotations

from typing import Any

from ..plan import BoxPlan
from ..track import Box, check_canvas, clip, show
from .common import Sightings, check_frames, hold, read_id, read_numbers, shown

GRID = 1000


def read(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0) -> BoxPlan:
    """An element, a list of them (the subjects of every frame), or one list per frame -> the plan of its subjects.

    A subject is named by metadata obj_id. Without ids, the elements of one picture are "0", "1", ... in their order,
    and in a list per frame each frame may hold one element. "desc" is the label.

    Raises ValueError, a sentence, for anything else, a box outside the grid, and one that looks like fractions.
    """
    check_canvas(width, height)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError(f"The elements are {shown(value)}; give [{_EXAMPLE}], or one such list per frame.")
    picture = all(isinstance(element, dict) for element in value)
    frames: list[Any] = hold(value, length) if picture else value
    length = check_frames(len(frames), length, "lists of elements")
    sightings, ids = Sightings(), set()
    for t, elements in enumerate(frames):
        if not isinstance(elements, list):
            raise ValueError(f"The elements of frame {t} are {shown(elements)}; give a list, [] for none.")
        for i, element in enumerate(elements):
            where = f"frame {t}" if len(elements) == 1 else f"frame {t} (element {i})"
            box = _read_element(element, where)
            metadata = element.get("metadata")
            named = metadata.get("obj_id") if isinstance(metadata, dict) else None
            if named is None and not picture and len(elements) > 1:
                raise ValueError(
                    f"Frame {t} has {len(elements)} elements, and not each says whose it is; keep one of them, or give "
                    "each a metadata obj_id."
                )
            ids.add(named is None)
            name = str(i) if named is None else read_id(named, where)
            label = element.get("desc")
            sightings.add(name, t, box, label if isinstance(label, str) else "")
    if len(ids) > 1:
        raise ValueError("Some elements have a metadata obj_id and others have none; give every element one, or none.")
    return sightings.plan(length, width, height, fps)


def write(plan: BoxPlan) -> list[list[dict[str, Any]]]:
    """One list of elements per frame, boxes to a thousandth of the canvas and at least two of these thick."""
    frames: list[list[dict[str, Any]]] = [[] for _ in range(plan.length)]
    for track in plan.tracks:
        for t, ((x1, y1, x2, y2), visible) in enumerate(zip(track.boxes, track.visible, strict=True)):
            if visible:
                (left, right), (top, bottom) = _cells(x1, x2), _cells(y1, y2)
                metadata = {"frame": t, "obj_id": track.obj_id}
                element = {"type": "obj", "bbox": [top, left, bottom, right], "desc": track.label, "metadata": metadata}
                frames[t].append(element)
    return frames


_EXAMPLE = '{"type": "obj", "bbox": [ymin, xmin, ymax, xmax]}'


def _cells(start: float, end: float) -> tuple[int, int]:
    """The grid lines of one axis. Two apart at least: [0, 0, 1, 1] would look like fractions."""
    low, high = round(start * GRID), round(end * GRID)
    if high - low < 2:
        low = min(max(round((start + end) / 2 * GRID) - 1, 0), GRID - 2)
        high = low + 2
    return low, high


def _read_element(element: Any, where: str) -> Box:
    if not isinstance(element, dict) or "bbox" not in element:
        raise ValueError(f"The element of {where} is {shown(element)}; an element is {_EXAMPLE}.")
    numbers = read_numbers(element["bbox"], where)
    top, left, bottom, right = numbers
    if top >= bottom or left >= right:
        raise ValueError(
            f"The element of {where} has the bbox {show(numbers)}, with reversed or equal corners; it is [ymin, xmin, "
            "ymax, xmax] with ymin < ymax and xmin < xmax."
        )
    if max(numbers) <= 1:
        raise ValueError(
            f"The element of {where} has the bbox {show(numbers)}, which looks like fractions; elements are on a grid "
            f"of 0 to {GRID}: multiply by {GRID}."
        )
    if min(numbers) < 0 or max(numbers) > GRID:
        raise ValueError(
            f"The element of {where} has the bbox {show(numbers)}, outside the grid of 0 to {GRID}; divide pixels by "
            f"width or height and multiply by {GRID}."
        )
    return clip([(left / GRID, top / GRID, right / GRID, bottom / GRID)])[0]

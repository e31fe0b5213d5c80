"""CSV for spreadsheets and scripts: one row per subject and frame, boxes in pixels."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping

from ..json_text import MAX_TEXT
from ..plan import BoxPlan
from ..track import MAX_FRAMES, check_canvas, show
from .common import Sightings, check_frames, read_box, read_id, scaled

CORNERS, SIZES = ("x1", "y1", "x2", "y2"), ("x", "y", "width", "height")
OPTIONAL = ("obj_id", "label", "visible")
COLUMNS = ("frame", "obj_id", "label", *CORNERS, "visible")
HEADER = "frame,x1,y1,x2,y2 (or x,y,width,height), and if wanted obj_id,label,visible"
NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,18})?(e[+-]?[0-9]{1,3})?", re.IGNORECASE | re.ASCII)
SHOWN = {"1": True, "true": True, "0": False, "false": False}


def read(value: str, width: int, height: int, length: int | None = None, fps: float = 8.0) -> BoxPlan:
    """CSV text with a header line -> the plan of its subjects (obj_id; "0" where there is no such column).

    Columns: see HEADER, in any order. A subject is hidden in the frames without a row, and in those whose visible is 0;
    such a row may leave its box empty. The last frame of the table is the last frame of the video.

    Raises ValueError, a sentence that names the line, for anything else.
    """
    check_canvas(width, height)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        what = f"{len(value)} characters" if isinstance(value, str) else show(value)
        raise ValueError(f"The CSV is {what}; give a text of at most {MAX_TEXT} characters.")
    reader = csv.reader(io.StringIO(value.removeprefix("\ufeff"), newline=""), strict=True)
    sightings, last, columns = Sightings(), -1, None
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns = _columns(cells)
                continue
            if len(cells) != len(columns):
                raise ValueError(
                    f"Line {reader.line_num} of the CSV has {len(cells)} cells, and the header names {len(columns)} "
                    "columns; write one cell per column, separated by commas."
                )
            row = dict(zip(columns, cells, strict=True))
            last = max(last, _add(row, sightings, f"line {reader.line_num}", width, height))
    except csv.Error as error:
        raise ValueError(
            f"Line {reader.line_num} of the CSV is broken ({error}); save the table as CSV again."
        ) from None
    if last < 0:
        raise ValueError(f"The CSV has no rows; give a header line {HEADER}, and a row per frame.")
    return sightings.plan(check_frames(last + 1, length, "frames in the CSV"), width, height, fps)


def write(plan: BoxPlan) -> str:
    """COLUMNS, a row per frame and subject, hidden frames too; pixels to a thousandth, at least one pixel."""
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for t in range(plan.length):
        for track in plan.tracks:
            sides = scaled(track.boxes[t], plan.width, plan.height)
            box = (int(side) if side.is_integer() else side for side in sides)
            table.writerow([t, track.obj_id, track.label, *box, int(track.visible[t])])
    return out.getvalue()


def is_csv(text: str) -> bool:
    """Whether a text begins with a header line such as `read` wants."""
    header = text[:1000].removeprefix("\ufeff").lstrip().split("\n", 1)[0]
    return "frame" in header.lower() and not header.startswith(("[", "{"))


def _columns(cells: list[str]) -> list[str]:
    columns = [cell.lower() for cell in cells]
    box = CORNERS if set(CORNERS) <= set(columns) else SIZES
    wrong = set(columns) - {"frame", *box, *OPTIONAL}
    if wrong or not {"frame", *box} <= set(columns) or len(set(columns)) != len(columns):
        raise ValueError(
            f"The header of the CSV is {show(cells)}; it must be {HEADER}, each once, separated by commas."
        )
    return columns


def _add(row: Mapping[str, str], sightings: Sightings, where: str, width: int, height: int) -> int:
    """Puts a row's box among the sightings; the row's frame."""
    frame = row["frame"]
    if not (frame.isascii() and frame.isdigit()) or len(frame) > 9 or int(frame) >= MAX_FRAMES:
        raise ValueError(f"The frame of {where} is {show(frame)}; frames are whole numbers from 0 to {MAX_FRAMES - 1}.")
    visible = SHOWN.get(row.get("visible", "1").lower())
    if visible is None:
        raise ValueError(f"visible of {where} is {show(row['visible'])}; it must be 1, 0, true or false.")
    box = {name: row[name] for name in (CORNERS if "x1" in row else SIZES)}
    if visible or any(box.values()):
        numbers = [_number(cell, name, where) for name, cell in box.items()]
        corners = read_box(numbers if "x1" in row else dict(zip(box, numbers, strict=True)), where, width, height)
        obj_id = read_id(row["obj_id"], where) if "obj_id" in row else "0"
        sightings.add(obj_id, int(frame), corners, row.get("label", ""), visible)
    return int(frame)


def _number(cell: str, name: str, where: str) -> float:
    if not NUMBER.fullmatch(cell):
        raise ValueError(f"{name} of {where} is {show(cell)}; it must be a number of pixels such as 12.5.")
    return float(cell)

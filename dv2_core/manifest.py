"""The project's list of clips: JSONL, one row a clip, as curation writes it and training and evaluation read it.

A row, in pixels of the stored video and with frame numbers counted from 0:

    {"video": "a/b.mp4",              path below the manifest's root
     "caption": "a red fish moving left",
     "fps": 25.0,
     "frames": [0, 50],               first frame and the one after the last
     "width": 640, "height": 360,
     "subject": {"phrase": "fish", "obj_id": "1"},
     "boxes": [[x1, y1, x2, y2], null, ...],    one entry a frame; null where the subject is not in the picture
     "mask_rle": [{"size": [360, 640], "counts": "..."}, null, ...],   COCO run lengths, one entry a frame
     "mask_path": "a/b.masks",        instead of mask_rle: a folder of PNGs, 00000.png for frame 0
     "ref_frame": 0,                  the frame that the subject was found in
     "scores": {"grounding": 0.62},
     "reject": null}                  or why the clip is not used; such a row needs no boxes and masks

The reader is strict: what it would have to guess is a ValueError that names file, line, field, value and fix.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

PixelBox = tuple[float, float, float, float]

#: No video has wider or higher frames, and no clip more of them: a larger number is a slip.
MAX_SIDE, MAX_FRAMES = 16_384, 100_000

#: A box may leave the frame by this many pixels (somebody's rounding) and is then cut to it.
SLACK = 0.5

REQUIRED = ("video", "caption", "fps", "frames", "width", "height", "boxes")


@dataclass(frozen=True)
class ClipRow:
    """One row; the module's docstring says what the fields hold. N = frames[1] - frames[0]."""

    video: str
    caption: str
    fps: float
    frames: tuple[int, int]
    width: int
    height: int
    boxes: tuple[PixelBox | None, ...]  # N
    phrase: str = ""
    obj_id: str = "0"
    mask_rle: tuple[Mapping[str, Any] | None, ...] | None = None  # N
    mask_path: str | None = None
    ref_frame: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The same for the same part of the same video and subject, wherever the files lie."""
        return f"{self.video}:{self.frames[0]}-{self.frames[1]}:{self.obj_id}"

    def to_json(self) -> str:
        """The line of this row, without its end."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        row["subject"] = {"phrase": row.pop("phrase"), "obj_id": row.pop("obj_id")}
        return json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False, allow_nan=False)


KNOWN = tuple(f.name for f in fields(ClipRow) if f.name not in ("phrase", "obj_id")) + ("subject", "reject")


def read_rows(path: Path) -> Iterator[tuple[int, int, str, ClipRow | None]]:
    """(byte offset, bytes, where, row) of every line that is not blank; row None is a rejected clip.

    Raises ValueError for a file that is not there and for the first bad row.
    """
    if not path.is_file():
        raise ValueError(f"There is no manifest {path}; give the path of a .jsonl file.")
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}:{number}"
            if line.strip():
                yield offset, len(line), where, parse_row(line, where)
            offset += len(line)


def parse_row(line: str | bytes, where: str) -> ClipRow | None:
    """One row, or None for a rejected clip. ``where`` opens the sentence of an error: "clips.jsonl:3"."""
    row = _Reader(_load(line, where), where)
    row.refuse_unknown()
    reject = row.values.get("reject")
    if reject is not None and not isinstance(reject, str):
        row.fail("reject", reject, "is neither null nor a reason", "write the reason as text, or null")
    if reject is not None:
        return None
    row.refuse_missing()
    first, end = row.frames()
    width, height = row.whole("width", 1, MAX_SIDE), row.whole("height", 1, MAX_SIDE)
    phrase, obj_id = row.subject()
    if row.values.get("mask_rle") is not None and row.values.get("mask_path") is not None:
        row.fail("mask_path", row.values["mask_path"], "is given beside mask_rle", "keep one of the two")
    return ClipRow(
        video=row.relative("video"),
        caption=row.text("caption"),
        fps=row.number("fps", 0.1, 1000),
        frames=(first, end),
        width=width,
        height=height,
        boxes=row.boxes(end - first, width, height),
        phrase=phrase,
        obj_id=obj_id,
        mask_rle=row.masks(end - first, width, height),
        mask_path=None if row.values.get("mask_path") is None else row.relative("mask_path"),
        ref_frame=None if row.values.get("ref_frame") is None else row.whole("ref_frame", first, end - 1),
        scores=row.scores(),
    )


def below(root: Path, relative: str, where: str) -> Path:
    """The file of a row's path. Raises ValueError if it lies outside ``root`` (by a link) or is not there."""
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{where}: {relative!r} leads out of {root} by a link; set the root to where the files lie.")
    if not path.exists():
        raise ValueError(f"{where}: there is no {relative!r} below {root}; correct the path or the root.")
    return path


class _Reader:
    """Typed access to the fields of one JSON object, with one form of error."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def fail(self, name: str, value: Any, problem: str, fix: str) -> NoReturn:
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise ValueError(f"{self.where}: {name} {shown} {problem}; {fix}.")

    def refuse_unknown(self) -> None:
        unknown = sorted(set(self.values) - set(KNOWN))
        if unknown:
            self.fail("field", unknown[0], "is unknown", f"known are {', '.join(KNOWN)}")

    def refuse_missing(self) -> None:
        for name in REQUIRED:
            if name not in self.values:
                raise ValueError(f"{self.where}: the field {name} is missing; every row needs {', '.join(REQUIRED)}.")

    def text(self, name: str) -> str:
        value = self.values[name]
        if not isinstance(value, str) or not value.strip():
            self.fail(name, value, "is no text", "write it as text that is not empty")
        return value

    def relative(self, name: str) -> str:
        value = self.text(name)
        windows = PureWindowsPath(value)
        if PurePosixPath(value).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
            self.fail(name, value, "leaves the manifest's root", "give a path below it, without '..'")
        if "\0" in value:
            self.fail(name, value, "holds a zero character", "remove it")
        return value

    def number(self, name: str, least: float, most: float) -> float:
        value = self.values[name]
        if not _is_number(value) or not least <= value <= most:
            self.fail(name, value, f"is no number from {least:g} to {most:g}", "correct it")
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int:
        value = self.values[name]
        if type(value) is not int or not least <= value <= most:
            self.fail(name, value, f"is no whole number from {least} to {most}", "correct it")
        return value

    def frames(self) -> tuple[int, int]:
        value = self.values["frames"]
        if not (isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)):
            self.fail("frames", value, "is not [first, end]", "give two whole numbers")
        first, end = value
        if not 0 <= first < end or end - first > MAX_FRAMES:
            self.fail(
                "frames", value, "holds no frames", "give [first, end] with 0 <= first < end; end is not included"
            )
        return first, end

    def subject(self) -> tuple[str, str]:
        value = self.values.get("subject", {})
        if not isinstance(value, dict) or set(value) - {"phrase", "obj_id"}:
            self.fail("subject", value, "is not a subject", 'give {"phrase": text, "obj_id": text or number}')
        phrase, obj_id = value.get("phrase", ""), value.get("obj_id", "0")
        if not isinstance(phrase, str):
            self.fail("subject.phrase", phrase, "is no text", "write the subject's words as text")
        if not isinstance(obj_id, str) and type(obj_id) is not int:
            self.fail("subject.obj_id", obj_id, "is no id", "give a text or a whole number")
        return phrase, str(obj_id)

    def per_frame(self, name: str, length: int) -> list[Any]:
        value = self.values[name]
        if not isinstance(value, list):
            self.fail(name, value, "is no list", "give one entry per frame")
        if len(value) != length:
            self.fail(name, len(value), f"entries do not fit the {length} frames of the row (the end is not included)",
                      "give one entry per frame, null where there is none")  # fmt: skip
        return value

    def boxes(self, length: int, width: int, height: int) -> tuple[PixelBox | None, ...]:
        boxes = []
        for n, box in enumerate(self.per_frame("boxes", length)):
            if box is None:
                boxes.append(None)
                continue
            if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
                self.fail(f"boxes[{n}]", box, "is no box", "give [x1, y1, x2, y2] in pixels, or null")
            x1, y1, x2, y2 = box
            inside = -SLACK <= x1 < x2 <= width + SLACK and -SLACK <= y1 < y2 <= height + SLACK
            cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
            if not inside or cut[0] >= cut[2] or cut[1] >= cut[3]:
                self.fail(f"boxes[{n}]", box, f"is no part of the {width}x{height} frame",
                          "give x1 < x2 and y1 < y2 in pixels inside it, or null")  # fmt: skip
            boxes.append(cut)
        if not any(boxes):
            raise ValueError(f"{self.where}: boxes are null in every frame; box the subject, or set reject.")
        return tuple(boxes)

    def masks(self, length: int, width: int, height: int) -> tuple[Mapping[str, Any] | None, ...] | None:
        if self.values.get("mask_rle") is None:
            return None
        masks = self.per_frame("mask_rle", length)
        for n, mask in enumerate(masks):
            if mask is None:
                continue
            if not isinstance(mask, dict) or set(mask) != {"size", "counts"}:
                self.fail(
                    f"mask_rle[{n}]", mask, "is no mask", 'give {"size": [height, width], "counts": ...}, or null'
                )
            if mask["size"] != [height, width]:
                self.fail(f"mask_rle[{n}].size", mask["size"], "is not [height, width] of the row",
                          f"encode the mask at [{height}, {width}]")  # fmt: skip
            if not isinstance(mask["counts"], str | list):
                self.fail(f"mask_rle[{n}].counts", mask["counts"], "are no run lengths", "give a text or a list")
        return tuple(masks)

    def scores(self) -> Mapping[str, float]:
        value = self.values.get("scores", {})
        if not isinstance(value, dict) or not all(map(_is_number, value.values())):
            self.fail("scores", value, "is no object of numbers", "give {name: number}")
        return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _load(line: str | bytes, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{where}: the field {name!r} is given twice; keep one.")
        return dict(pairs)

    def refuse(number: str) -> NoReturn:
        raise ValueError(f"{where}: {number[:20]} is no number that a row can hold; give a finite, smaller one.")

    def whole(digits: str) -> int:
        return int(digits) if len(digits) < 18 else refuse(digits)

    try:
        value = json.loads(line, object_pairs_hook=unique, parse_int=whole, parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON row ({error}); write one JSON object a line, in UTF-8.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a row must be a JSON object, not {type(value).__name__}.")
    return value

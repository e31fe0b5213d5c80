"""Lists of videos: JSONL, CSV as WebVid has it, and VideoBooth's."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ... import rle
from ...manifest import parse_row
from ..clip import Clip
from ..config import CurateConfig
from .common import named, relative

#: Names under which lists have the same thing; the first that is there counts.
VIDEO = ("video", "video_path", "file", "path", "videos", "filename")
CAPTION = ("caption", "name", "text", "prompt")
WORD = ("word", "subject", "phrase", "label")


def read_jsonl(source: Path, config: CurateConfig) -> Iterator[Clip]:
    """One JSON object a line: a video's path, and if known its caption and the subject's word; or the rows of a
    manifest (see ``dv2_core.manifest``), whose boxes and masks are then taken as they are."""
    with source.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                clip = from_row(line, f"{source.name}:{number}", _root(source, config))
                if clip is not None:
                    yield clip


def from_row(line: str, where: str, root: Path) -> Clip | None:
    """A line of a list; None for a row of a manifest that was rejected."""
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not a JSON row ({error}); write one JSON object a line, in UTF-8.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{where}: a row must be a JSON object, not {type(values).__name__}.")
    if "frames" in values and ("boxes" in values or values.get("reject") is not None):
        row = parse_row(line, where)
        if row is None:
            return None
        folder = None if row.mask_path is None else str(root / row.mask_path)
        return Clip(
            name=named(row.video), source=str(root / row.video), obj_id=row.obj_id, caption=row.caption,
            phrase=row.phrase, frames=row.frames, boxes=row.boxes, masks=row.mask_rle, mask_folder=folder,
            ref_frame=row.ref_frame, scores=row.scores,
        )  # fmt: skip
    return _listed(values, where, root)


def read_csv(source: Path, config: CurateConfig) -> Iterator[Clip]:
    """A table with a header. The video: a column ``video`` (or ``path``...), or WebVid's ``page_dir`` and ``videoid``.
    The caption: ``caption``, or WebVid's ``name``. The subject's word, if there is one: ``word``."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            yield _listed(row, f"{source.name}:{number}", _root(source, config))


def read_videobooth(source: Path, config: CurateConfig) -> Iterator[Clip]:
    """VideoBooth's subset of WebVid: ``dog.csv`` beside ``dog/VIDEOID/mask.json`` with ``mask_1.png``, ..., the
    subjects' boxes and masks in the first frame; one clip per subject.

    Facts: Vchitect/VideoBooth ``datasets/webvideo_image_dataset.py``.
    """
    tables = [source] if source.is_file() else sorted(f for f in source.glob("*.csv") if f.with_suffix("").is_dir())
    for table in tables:
        for clip in read_csv(table, config):
            folder = table.with_suffix("") / Path(clip.source).stem
            if not (folder / "mask.json").is_file():
                continue
            for entry in json.loads((folder / "mask.json").read_text(encoding="utf-8")):
                if "box" in entry:
                    yield _located(clip, folder, entry)


def _located(clip: Clip, folder: Path, entry: Mapping[str, Any]) -> Clip:
    where = f"{folder.name}/mask.json"
    number = str(entry.get("value", ""))
    file = folder / f"mask_{number}.png"
    if not number.isdecimal() or not file.is_file():
        raise ValueError(f"{where}: there is no mask_{number}.png beside it; give every subject its mask.")
    with Image.open(file, formats=["PNG"]) as picture:
        mask = np.asarray(picture.convert("L")) > 0
    x1, y1, x2, y2 = (float(value) for value in entry["box"])
    height, width = mask.shape
    box = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
    values = {f: getattr(clip, f) for f in ("name", "source", "caption")}
    return Clip(**values, obj_id=number, phrase=str(entry.get("label", "")), ref_frame=0, start=box,
                start_mask=rle.encode(mask))  # fmt: skip


def _listed(values: Mapping[str, Any], where: str, root: Path) -> Clip:
    """A row that names a video."""
    video = _first(values, VIDEO)
    if not video and values.get("videoid"):
        video = "/".join(part for part in (str(values.get("page_dir") or ""), f"{values['videoid']}.mp4") if part)
    if not video:
        raise ValueError(f"{where}: no field names the video; give one of {', '.join(VIDEO)}, or videoid.")
    path = relative(video, where)
    word = values.get("subject") if isinstance(values.get("subject"), dict) else None
    phrase = str(word.get("phrase", "")) if word else _first(values, WORD)
    return Clip(name=named(path), source=str(root / path), caption=_first(values, CAPTION), phrase=phrase)


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((str(values[n]).strip() for n in names if isinstance(values.get(n), str | int) and values[n] != ""), "")


def _root(source: Path, config: CurateConfig) -> Path:
    return Path(config.root) if config.root else source.parent

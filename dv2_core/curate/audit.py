"""The audit page: clips with their boxes to look through, and the verdicts that come back from it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..boxes import draw_boxes
from ..boxes.interpolate import from_visible
from .clip import Clip, Reason
from .geometry import in_fractions
from .stages import CLIP_STAGES
from .state import digest
from .tools import Tools
from .video import pictures

TEMPLATE = Path(__file__).with_name("audit.html")

#: Frames of a contact sheet, and the longer side of each in pixels.
FRAMES, SIDE = 6, 176

#: The group of the clips without a reason, and the verdicts that a person can give.
ACCEPTED, VERDICTS = "accepted", ("accept", "reject")


class Album:
    """The clips of the page: of every reason, and of the accepted ones, the same ``most`` whenever there are more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.groups: dict[str, list[tuple[str, Clip, Reason | None]]] = {}

    def add(self, clip: Clip, reason: Reason | None) -> None:
        if not self.most:
            return
        group = self.groups.setdefault(reason.code if reason else ACCEPTED, [])
        group.append((digest(clip.id), clip if reason is None else replace(clip, masks=None), reason))
        if len(group) >= 2 * self.most:
            group.sort(key=lambda entry: entry[0])
            del group[self.most :]

    def shown(self) -> list[tuple[Clip, Reason | None]]:
        """The accepted ones first, then by reason; within these in the order of their digests."""
        order = sorted(self.groups, key=lambda code: (code != ACCEPTED, code))
        return [entry[1:] for code in order for entry in sorted(self.groups[code], key=lambda e: e[0])[: self.most]]


def write_page(album: Album, rejected: Mapping[str, Mapping[str, int]], tools: Tools, path: Path) -> None:
    """Write the page as one file that needs nothing else. rejected: numbers by stage and reason, of all clips."""
    judging = {stage.name for stage in CLIP_STAGES if stage.judges}
    judged = {code for stage, codes in rejected.items() if stage in judging for code in codes}
    entries = []
    for clip, reason in album.shown():
        told = tools.verdicts.get(clip.id, {})
        size = f"{clip.width}x{clip.height}, {clip.fps:g} fps, frames {clip.span[0]} to {clip.span[1]}"
        entries.append({
            "id": clip.id, "caption": clip.caption, "word": clip.phrase, "scores": dict(clip.scores),
            "size": size if clip.width else "",
            "group": reason.code if reason else ACCEPTED, "detail": reason.detail if reason else "",
            "judged": reason is None or reason.code in judged, "split": clip.frames is not None,
            "verdict": told.get("verdict", ""), "told": told.get("word", ""), "sheet": _sheet(clip, tools),
        })  # fmt: skip
    data = json.dumps(entries, ensure_ascii=False).replace("<", "\\u003c")  # no text can end the script element
    with tools.writing(path) as file:
        file.write(TEMPLATE.read_text(encoding="utf-8").replace("{{entries}}", data).encode())


def _sheet(clip: Clip, tools: Tools) -> str:
    """Frames of the clip side by side, its boxes drawn, as the address of a JPEG; "" where they cannot be read."""
    if not clip.width or clip.span[1] <= clip.span[0]:
        return ""
    first, end = clip.span
    numbers = [round(n) for n in np.linspace(first, end - 1, min(FRAMES, end - first))]
    try:
        frames = pictures(tools.video(clip), clip, numbers, SIDE)
    except (ValueError, OSError):
        return ""
    boxes = clip.boxes or ((clip.start,) if clip.start else ())
    found = {
        n: in_fractions(box, clip)
        for n, t in enumerate(numbers)
        if t - first < len(boxes) and (box := boxes[t - first])
    }
    if found:
        frames = draw_boxes(frames, from_visible(found, len(numbers)))
    strip = torch.cat(list(frames), 1)  # [h, n w, 3]
    buffer = io.BytesIO()
    Image.fromarray((strip * 255).round().byte().numpy()).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def read_verdicts(file: Path) -> dict[str, dict[str, str]]:
    """{clip's id: {"verdict": "accept" or "reject", "word": the subject's}} of a file that the page wrote.

    Raises ValueError for anything else.
    """
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no file of verdicts ({error}); export it from the audit page again.") from error
    verdicts = data.get("verdicts") if isinstance(data, dict) else None
    if not isinstance(verdicts, dict):
        raise ValueError(f'{file.name} has no "verdicts"; export it from the audit page again.')
    for name, told in verdicts.items():
        if not isinstance(told, dict) or set(told) - {"verdict", "word"} or not all(map(_is_text, told.values())):
            raise ValueError(f'{file.name}: the verdict on {name!r} is {told!r}; give {{"verdict": .., "word": ..}}.')
        if told.get("verdict", "accept") not in VERDICTS:
            raise ValueError(f"{file.name}: the verdict on {name!r} is {told['verdict']!r}; give one of {VERDICTS}.")
    return verdicts


def keep_verdicts(out: Path, given: Path | None) -> dict[str, dict[str, str]]:
    """What people said so far: ``verdicts.json`` in the output folder, with those of the given file over it."""
    kept = out / "verdicts.json"
    verdicts = read_verdicts(kept) if kept.is_file() else {}
    if given is not None:
        verdicts = {**verdicts, **read_verdicts(given)}
        text = json.dumps({"verdicts": verdicts}, ensure_ascii=False, indent=1, sort_keys=True)
        temporary = kept.with_suffix(".tmp")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(kept)
    return verdicts


def _is_text(value: Any) -> bool:
    return isinstance(value, str)

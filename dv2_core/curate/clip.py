"""What curation knows of one clip, and the reasons for which it does not go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..manifest import ClipRow, PixelBox

#: A mask as COCO run lengths, see ``dv2_core.rle``.
Rle = Mapping[str, Any]


@dataclass(frozen=True)
class Reason:
    """Why a clip is not used. code: a word or two, the same for all such clips; detail: what was found in this one."""

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True)
class Clip:
    """A clip of N frames between two stages; boxes and sizes are pixels of the stored video.

    An importer fills in what its source says, every stage adds its part, and what is there already is not computed.

    name: the video's path below the manifest's root. source: where it is on this machine: a video, a folder of
        pictures, or a shard, of which ``member`` gives the first byte of the video and their number.
    frames: the first one and the one after the last; None: not split yet. scenes: what the split stage found.
    fps: frames per second; of a folder of pictures the importer says it.
    mask_folder: pictures of masks that somebody made. box_file: boxes likewise, see ``boxes.parse_boxes``.
    start: the subject's box in frame ``ref_frame`` (counted from the video's start). start_mask: its mask there.
    """

    name: str
    source: str
    member: tuple[int, int] | None = None
    obj_id: str = "0"
    caption: str = ""
    phrase: str = ""
    frames: tuple[int, int] | None = None
    fps: float = 0.0
    length: int = 0
    width: int = 0
    height: int = 0
    scenes: tuple[tuple[int, int], ...] = ()
    mask_folder: str | None = None
    box_file: str | None = None
    ref_frame: int | None = None
    start: PixelBox | None = None
    start_mask: Rle | None = None
    boxes: tuple[PixelBox | None, ...] | None = None  # N
    masks: tuple[Rle | None, ...] | None = None  # N
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The same for the same part of the same video and subject; ``ClipRow.id`` once the clip is split."""
        part = "" if self.frames is None else f"{self.frames[0]}-{self.frames[1]}:"
        return f"{self.name}:{part}{self.obj_id}"

    @property
    def first(self) -> int:
        """The clip's first frame, counted from the video's start."""
        return self.span[0]

    @property
    def span(self) -> tuple[int, int]:
        return self.frames or (0, self.length)

    def scored(self, **scores: float) -> Clip:
        """The clip with these scores added, rounded to four digits."""
        return replace(self, scores={**self.scores, **{k: round(float(v), 4) for k, v in scores.items()}})

    def row(self) -> ClipRow:
        """The clip as a row of the manifest."""
        return ClipRow(
            video=self.name, caption=self.caption, fps=self.fps, frames=self.span, width=self.width,
            height=self.height, boxes=self.boxes or (), phrase=self.phrase, obj_id=self.obj_id, mask_rle=self.masks,
            ref_frame=self.ref_frame, scores=self.scores,
        )  # fmt: skip

    def line(self, reason: Reason | None) -> str:
        """The clip's line of the manifest; that of a rejected one says why, and leaves out what is not known."""
        if reason is None:
            return self.row().to_json() + "\n"
        values = json.loads(self.row().to_json())
        known = {k: v for k, v in values.items() if v or k == "caption"}
        for name in ("mask_rle", "ref_frame"):
            known.pop(name, None)
        if not self.width or not self.length:
            known = {"video": self.name, "caption": self.caption}
        return json.dumps({**known, "reject": str(reason)}, ensure_ascii=False, allow_nan=False) + "\n"


def difference(old: Clip, new: Clip) -> dict[str, Any]:
    """The fields in which ``new`` differs, as plain values."""
    return {f.name: getattr(new, f.name) for f in fields(Clip) if getattr(new, f.name) != getattr(old, f.name)}


def changed(clip: Clip, values: Mapping[str, Any]) -> Clip:
    """The clip with fields as JSON has them."""
    return replace(clip, **{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value

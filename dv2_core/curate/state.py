"""What every stage made of every clip, on disk: a curation that was killed goes on where it was.

One small file per video and per clip. A stage's entry counts only under the key that it was written with: a digest of
the source as it is on disk, of the settings of that stage, and of those of every stage before it that changes the clip.
So another threshold of a filter is applied at once, and a tracked mask is made again only when it has to be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from itertools import compress
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from .clip import Clip, Reason, changed, difference
from .stages import Stage
from .tools import Tools

#: Raised whenever a stage makes something else of the same settings, so that older entries are not used.
VERSION = 2


@dataclass
class Work:
    """A clip on its way. key: digest of all that made it what it is. entries: what its file holds, by stage.

    reason, at: why and in which stage it was rejected.
    """

    clip: Clip
    id: str
    key: str
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    reason: Reason | None = None
    at: str = ""


class Store:
    """The files of a curation's output folder."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def resume(self, clip: Clip, key: str) -> Work:
        """The work on a clip, with what earlier runs made of it. key: digest of all that it comes from."""
        work = Work(clip, clip.id, key)
        try:
            kept = json.loads(self._path(work.id).read_bytes())
        except (OSError, ValueError):  # not there yet, or damaged: made anew
            return work
        if isinstance(kept, dict) and kept.get("id") == work.id and isinstance(kept.get("stages"), dict):
            work.entries = kept["stages"]
        return work

    def save(self, work: Work) -> None:
        text = json.dumps({"id": work.id, "stages": work.entries}, ensure_ascii=False)
        with self.tools.writing(self._path(work.id)) as file:
            file.write(text.encode())

    def _path(self, name: str) -> Path:
        code = digest(name)
        return self.tools.out / "state" / code[:2] / f"{code}.json"


@dataclass
class Tally:
    """What one stage did in this run, without what was there already. seconds: spent in it."""

    clips: int = 0
    seconds: float = 0.0


def advance(works: Sequence[Work], stages: Sequence[Stage], store: Store, tallies: dict[str, Tally]) -> None:
    """Take the clips of a batch through the stages, each only where it has not been yet. Every result is on disk before
    the next one is begun."""
    for stage in stages:
        going = [work for work in works if work.reason is None and not _overruled(work, stage, store.tools)]
        keys = [_key(work, stage, store.tools) for work in going]
        known = [work.entries.get(stage.name, {}).get("key") == key for work, key in zip(going, keys, strict=True)]
        if not all(known):
            runs = [stage.whole or not there for there in known]
            tally = tallies.setdefault(stage.name, Tally())
            started = perf_counter()
            results = stage.run([work.clip for work in compress(going, runs)], store.tools)
            ran = compress(zip(going, keys, known, strict=True), runs)
            pairs = zip(ran, results, strict=True)
            for (work, key, there), result in tqdm(pairs, stage.name, sum(runs), unit="clip", leave=False, delay=2):
                if not there:
                    work.entries[stage.name] = _entry(key, work.clip, result)
                    store.save(work)
                    tally.clips += 1
            tally.seconds += perf_counter() - started
        for work in going:
            _take(work, stage, work.entries[stage.name])


def _overruled(work: Work, stage: Stage, tools: Tools) -> bool:
    return stage.judges and tools.verdicts.get(work.id, {}).get("verdict") == "accept"


def _key(work: Work, stage: Stage, tools: Tools) -> str:
    told = tools.verdicts.get(work.id, {})
    return digest(work.key, stage.name, stage.reads(tools.config), told.get(stage.asks))


def _entry(key: str, clip: Clip, result: Clip | Reason) -> dict[str, Any]:
    if isinstance(result, Reason):
        return {"key": key, "reason": [result.code, result.detail]}
    return {"key": key, "adds": difference(clip, result)}


def _take(work: Work, stage: Stage, entry: dict[str, Any]) -> None:
    if "reason" in entry:
        work.reason, work.at = Reason(*entry["reason"]), stage.name
        return
    work.clip = changed(work.clip, entry["adds"])
    if not stage.judges:
        work.key = entry["key"]


def source_digest(clip: Clip) -> str:
    """Digest of what the importer says, with sizes and times of change of the files that it names in place of where
    they lie, so that a source may be moved."""
    names = [clip.source, clip.mask_folder, clip.box_file]
    said = replace(clip, source="", mask_folder=None, box_file=None)
    return digest(VERSION, said, [_stamp(Path(name)) if name else None for name in names])


def _stamp(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def digest(*values: Any) -> str:
    """32 hexadecimal digits of a SHA-256 of plain values and dataclasses of them."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else repr(value)

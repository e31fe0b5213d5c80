"""The whole of a curation: from the source to manifest, shards, counts and audit page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ..manifest import parse_row
from .audit import Album, write_page
from .clip import Clip, Reason
from .config import CurateConfig
from .importers import read_source
from .shards import ShardWriter
from .stages import CLIP_STAGES, VIDEO_STAGES, Stage, parts
from .state import Store, Tally, Work, advance, digest, source_digest
from .tools import Tools
from .video import windows

MANIFEST, COUNTS, PAGE = "clips.jsonl", "counts.json", "audit.html"


@dataclass
class Counts:
    """How many clips there are, and in which stage and why they were rejected."""

    videos: int = 0
    clips: int = 0
    accepted: int = 0
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, clip: Clip, reason: Reason | None, stage: str) -> None:
        self.clips += clip.frames is not None
        if reason is None:
            self.accepted += 1
        else:
            codes = self.rejected.setdefault(stage, {})
            codes[reason.code] = codes.get(reason.code, 0) + 1


def chosen_stages(config: CurateConfig) -> tuple[list[Stage], list[Stage]]:
    """(those of videos, those of clips) that are not skipped. ValueError for names of no stage and of needed ones."""
    names = [stage.name for stage in (*VIDEO_STAGES, *CLIP_STAGES)]
    unknown = sorted(set(config.skip) - set(names))
    if unknown:
        raise ValueError(f"skip names {unknown}, which are no stages; the stages are {names}.")
    if {"probe", "boxes"} & set(config.skip):
        raise ValueError("skip names a stage that nothing works without: probe or boxes. Leave it out of skip.")
    chosen = ([s for s in stages if s.name not in config.skip] for stages in (VIDEO_STAGES, CLIP_STAGES))
    videos, clips = chosen
    return videos, clips


def listed(config: CurateConfig) -> Iterator[tuple[list[Clip], list[Clip]]]:
    """The source, ``batch`` videos at a time: (those that are new, those that the source names once more)."""
    seen: set[str] = set()
    for videos in windows(read_source(config), config.batch):
        new, again = [], []
        for video in videos:
            (again if video.id in seen else new).append(video)
            seen.add(video.id)
        yield new, again


def batches(videos: list[Clip], store: Store, tallies: dict[str, Tally]) -> Iterator[list[Work]]:
    """A few videos probed and split: the work on their clips, not begun, and on the videos that were rejected.

    ``batch`` of them at a time. Which clips are together depends on the source alone, not on where an earlier run was
    stopped or on which machine this is, since models may give other last digits in other company.
    """
    config = store.tools.config
    found = [store.resume(video, source_digest(video)) for video in videos]
    advance(found, chosen_stages(config)[0], store, tallies)
    works: list[Work] = []
    for video in found:
        clips = parts(video.clip) if video.reason is None else []
        works += [store.resume(clip, digest(video.key, clip.id, clip.start)) for clip in clips] or [video]
    yield from windows(iter(works), config.batch)


def curated(tools: Tools, tallies: dict[str, Tally], counts: Counts) -> Iterator[tuple[Clip, Reason | None, str]]:
    """(clip, reason or None, the stage that rejected it), in the order of the source."""
    store = Store(tools)
    for videos, again in listed(tools.config):
        counts.videos += len(videos) + len(again)
        for video in again:
            yield video, Reason("listed twice", "the source names this video before"), "import"
        for works in batches(videos, store, tallies):
            advance(works, chosen_stages(tools.config)[1], store, tallies)
            for work in works:
                yield work.clip, work.reason, work.at


def curate(
    config: CurateConfig, out: Path, verdicts: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[Counts, dict[str, Tally]]:
    """Curate the source into ``out``: clips.jsonl with videos/ and, if asked for, shards/; counts.json; audit.html.

    Started again, it goes on where it was; the result is the same, byte for byte. Raises ValueError for settings and
    sources that cannot be used and for models that are not there.
    """
    chosen_stages(config)
    tools = Tools(config, out, verdicts)
    shutil.rmtree(out / "tmp", ignore_errors=True)  # what a killed run was writing
    tallies: dict[str, Tally] = {}
    counts, album = Counts(), Album(config.audit)
    with tools.writing(out / MANIFEST) as manifest, ShardWriter(tools) as shards:
        for clip, reason, stage in tqdm(curated(tools, tallies, counts), "curating", unit="clip", mininterval=5):
            line = clip.line(reason)
            parse_row(line, clip.id)  # what is written can be read
            if reason is None:
                keep_video(tools, clip)
                shards.add(clip, line)
            manifest.write(line.encode())
            counts.add(clip, reason, stage)
            album.add(clip, reason)
    with tools.writing(out / COUNTS) as file:
        file.write(json.dumps(vars(counts), indent=1, sort_keys=True).encode() + b"\n")
    write_page(album, counts.rejected, tools, out / PAGE)
    return counts, tallies


def keep_video(tools: Tools, clip: Clip) -> None:
    """The clip's video below the manifest's root: a hard link where that is possible, else a copy with its time of
    change, by which another video of the same name is noticed."""
    source, target = Path(clip.source).resolve(), tools.made(clip)
    if source.is_dir():  # made of its pictures, where it is
        return
    stamp = source.stat()
    size = stamp.st_size if clip.member is None else clip.member[1]
    if target.exists():
        kept = target.stat()
        if os.path.samestat(kept, stamp) or (kept.st_size, kept.st_mtime_ns) == (size, stamp.st_mtime_ns):
            return
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    if clip.member is None:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    video = tools.video(clip)
    with tools.writing(target) as file, video.open("rb") if isinstance(video, Path) else video as data:
        shutil.copyfileobj(data, file)
    os.utime(target, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))

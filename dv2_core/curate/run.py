"""The whole of a curation: from the source to manifest, shards, counts and audit page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
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


def works_of(videos: list[Clip], store: Store, tallies: dict[str, Tally]) -> list[Work]:
    """What becomes of a few videos: the work on their clips, and on the videos that were rejected themselves."""
    video_stages, clip_stages = chosen_stages(store.tools.config)
    found = [store.begin(video, source_digest(video)) for video in videos]
    advance(found, video_stages, store, tallies)
    done: list[Work] = []
    for video in found:
        if video.reason is not None:
            done.append(video)
            continue
        done += [store.begin(clip, digest(video.key, video.clip, clip)) for clip in parts(video.clip)]
    for group in windows(iter([work for work in done if work.reason is None]), store.tools.config.batch):
        advance(group, clip_stages, store, tallies)
    return done


def curated(tools: Tools, tallies: dict[str, Tally], counts: Counts) -> Iterator[tuple[Clip, Reason | None, str]]:
    """(clip, reason or None, the stage that rejected it), in the order of the source."""
    store = Store(tools)
    seen: set[str] = set()
    for videos in windows(read_source(tools.config), tools.config.batch):
        counts.videos += len(videos)
        fresh = []
        for video in videos:
            if video.id in seen:
                yield video, Reason("listed twice", "the source names this video before"), "import"
            else:
                seen.add(video.id)
                fresh.append(video)
        for work in works_of(fresh, store, tallies):
            yield work.clip, work.reason, work.at


def curate(config: CurateConfig, out: Path, verdicts: dict | None = None) -> tuple[Counts, dict[str, Tally]]:
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
    """The clip's video below the manifest's root: a hard link where that is possible, else a copy."""
    target = tools.made(clip)
    if target.exists():
        return
    if clip.member is None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(Path(clip.source).resolve(), target)
            return
        except OSError:  # another file system, or one without links
            pass
    video = tools.video(clip)
    with tools.writing(target) as file:
        source = video.open("rb") if isinstance(video, Path) else video
        with source:
            shutil.copyfileobj(source, file)

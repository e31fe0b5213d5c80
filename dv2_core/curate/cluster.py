"""The same stages on Ray Data: on all cores and GPUs of this machine, or of a cluster.

Workers only fill the state (see ``state``), which has to lie on storage that all of them see; the result is put
together afterwards by the very pass over it that a run without Ray makes, so it is the same, byte for byte. What a
killed worker had finished is not done again: Ray gives its clips to another one, which finds them in the state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .clip import Clip, changed
from .config import CurateConfig
from .importers import read_source
from .run import advanced_parts, chosen_stages
from .state import Store, Tally, advance
from .tools import Tools
from .video import windows

#: Videos that are handed out at once: the list of ten million of them is never in memory.
WAVE = 50_000

Batch = dict[str, list[str]]
Verdicts = Mapping[str, Mapping[str, str]]


def split_videos(
    batch: Mapping[str, Sequence[str]], config: CurateConfig, out: Path, verdicts: Verdicts, folder: Path
) -> Batch:
    """Probes and splits videos: rows of videos -> rows of clips. A rejected video goes no further.

    folder: that paths of the settings are relative to.
    """
    os.chdir(folder)
    tallies: dict[str, Tally] = {}
    videos = [unpacked(text) for text in batch["clip"]]
    works = advanced_parts(videos, Store(Tools(config, out, verdicts)), tallies)
    going = [work for work in works if work.reason is None]
    return rows([work.clip for work in going], [work.key for work in going], tallies)


class ClipWorker:
    """Takes clips through their stages; an actor, which keeps its models between batches."""

    def __init__(self, config: CurateConfig, out: Path, verdicts: Verdicts, folder: Path) -> None:
        os.chdir(folder)
        self.store, self.stages = Store(Tools(config, out, verdicts)), chosen_stages(config)[1]

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> Batch:
        tallies: dict[str, Tally] = {}
        for text in batch["tallies"]:
            added(tallies, json.loads(text))
        clips, keys = [unpacked(text) for text in batch["clip"]], list(batch["key"])
        works = [self.store.resume(clip, key) for clip, key in zip(clips, keys, strict=True)]
        advance(works, self.stages, self.store, tallies)
        return rows(clips, keys, tallies)


def rows(clips: Sequence[Clip], keys: Sequence[str], tallies: Mapping[str, Tally]) -> Batch:
    """Clips between two operators, and what was done, in the first row."""
    told = [
        json.dumps({name: asdict(tally) for name, tally in tallies.items()}) if not n else "{}"
        for n in range(len(clips))
    ]
    return {"clip": [json.dumps(packed(clip)) for clip in clips], "key": list(keys), "tallies": told}


def packed(clip: Clip) -> dict[str, Any]:
    return {f.name: getattr(clip, f.name) for f in fields(Clip)}


def unpacked(text: str) -> Clip:
    return changed(Clip("", ""), json.loads(text))


def added(tallies: dict[str, Tally], more: Mapping[str, Mapping[str, float]]) -> None:
    """Add what another worker did."""
    for name, one in more.items():
        tally = tallies.setdefault(name, Tally())
        tally.clips += int(one["clips"])
        tally.seconds += one["seconds"]


def fill(config: CurateConfig, out: Path, verdicts: Verdicts, address: str) -> dict[str, Tally]:
    """Run the stages on Ray; what they made is in the state of ``out``. Returns what each stage did, over all workers.

    address: of a cluster; "" starts Ray on this machine for as long as this lasts.
    Raises ValueError where Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("--ray needs Ray Data; install it with pip install 'ray[data]'.") from error
    # Two at least: one for the videos, one for the clips.
    cores = None if address else max(2, os.cpu_count() or 1)
    ray.init(address=address or None, num_cpus=cores, include_dashboard=False, log_to_driver=False)
    tallies: dict[str, Tally] = {}
    try:
        gpus, cores = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        common = {"config": config, "out": out, "verdicts": dict(verdicts), "folder": Path.cwd()}
        batches = {"batch_size": config.batch, "batch_format": "numpy"}
        held = {"num_gpus": 1} if gpus else {"num_cpus": 1}  # by each worker for as long as it lives
        workers = ray.data.ActorPoolStrategy(min_size=1, max_size=gpus or max(1, cores - 1))
        for wave in windows(read_source(config), WAVE):
            data = ray.data.from_items([{"clip": json.dumps(packed(clip))} for clip in wave])
            data = data.map_batches(split_videos, fn_kwargs=common, **batches)
            data = data.map_batches(ClipWorker, fn_constructor_kwargs=common, compute=workers, **held, **batches)
            for row in data.iter_rows():
                added(tallies, json.loads(row["tallies"]))
    finally:
        ray.shutdown()
    return tallies

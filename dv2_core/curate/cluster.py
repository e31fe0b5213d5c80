"""The same stages on Ray Data: on all cores and GPUs of this machine, or of a cluster.

Workers only fill the state (see ``state``), which has to lie on storage that all of them see; the result is put
together afterwards by the very pass over it that a run without Ray makes, so it is the same, byte for byte. What a
killed worker had finished is not done again: Ray gives its clips to another one, which finds them in the state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from .clip import Clip, changed
from .config import CurateConfig
from .importers import read_source
from .run import advanced_parts, chosen_stages
from .stages import Stage
from .state import Store, Tally, advance
from .tools import Tools
from .video import windows

#: Videos that are handed out at once: the list of ten million of them is never in memory.
WAVE = 50_000

Batch = dict[str, list[str]]


class Worker:
    """What the operators share: an actor that keeps its models between batches."""

    def __init__(self, config: CurateConfig, out: Path, verdicts: Mapping[str, Mapping[str, str]]) -> None:
        self.store = Store(Tools(config, out, verdicts))


class VideoWorker(Worker):
    """Probes and splits videos: rows of videos -> rows of clips. A rejected video goes no further."""

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> Batch:
        tallies: dict[str, Tally] = {}
        works = advanced_parts([unpacked(text) for text in batch["clip"]], self.store, tallies)
        going = [work for work in works if work.reason is None]
        return rows([work.clip for work in going], [work.key for work in going], tallies)


class ClipWorker(Worker):
    """Takes clips through the first ``count`` stages; those that an operator before it has run are only looked up."""

    def __init__(self, config: CurateConfig, out: Path, verdicts: Mapping[str, Mapping[str, str]], count: int) -> None:
        super().__init__(config, out, verdicts)
        self.stages = chosen_stages(config)[1][:count]

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> Batch:
        tallies: dict[str, Tally] = {}
        for text in batch["tallies"]:
            added(tallies, json.loads(text))
        clips = [unpacked(text) for text in batch["clip"]]
        works = [self.store.resume(clip, key) for clip, key in zip(clips, batch["key"], strict=True)]
        advance(works, self.stages, self.store, tallies)
        return rows(clips, list(batch["key"]), tallies)


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


def groups(stages: Sequence[Stage]) -> list[tuple[int, bool]]:
    """(stages up to the end of the group, whether it runs models): one operator for neighbours of the same kind."""
    ends, end = [], 0
    for gpu, group in groupby(stages, lambda stage: stage.gpu):
        end += len(list(group))
        ends.append((end, gpu))
    return ends


def fill(config: CurateConfig, out: Path, verdicts: Mapping[str, Mapping[str, str]], address: str) -> dict[str, Tally]:
    """Run the stages on Ray; what they made is in the state of ``out``. Returns what each stage did, over all workers.

    address: of a cluster; "" starts Ray on this machine for as long as this lasts.
    Raises ValueError where Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("--ray needs Ray Data; install it with pip install 'ray[data]'.") from error
    ray.init(address=address or None, include_dashboard=False, log_to_driver=False)
    tallies: dict[str, Tally] = {}
    try:
        gpus, cores = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        common = (config, out.resolve(), dict(verdicts))
        for wave in windows(read_source(config), WAVE):
            data = ray.data.from_items([{"clip": json.dumps(packed(clip))} for clip in wave])
            options = {"batch_size": config.batch, "batch_format": "numpy"}
            on_cpu = {**options, "num_cpus": 1, "concurrency": (1, max(1, cores))}
            on_gpu = {**options, "num_cpus": 1, "num_gpus": 1, "concurrency": (1, gpus)} if gpus else on_cpu
            data = data.map_batches(VideoWorker, fn_constructor_args=common, **on_cpu)
            for count, gpu in groups(chosen_stages(config)[1]):
                used = on_gpu if gpu else on_cpu
                data = data.map_batches(ClipWorker, fn_constructor_args=(*common, count), **used)
            for row in data.iter_rows():
                added(tallies, json.loads(row["tallies"]))
    finally:
        ray.shutdown()
    return tallies

"""The same stages on Ray Data: on all cores and GPUs of this machine, or of a cluster.

Workers only fill the state (see ``state``), which has to lie on storage that all of them see; the result is put
together afterwards by the very pass over it that a run without Ray makes, so it is the same, byte for byte. What a
killed worker had finished is not done again: Ray gives its batch to another one, which finds it in the state.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from .clip import Clip, changed
from .config import CurateConfig
from .run import batches, chosen_stages, listed
from .state import Store, Tally, Work, advance
from .tools import SetupError, Tools
from .video import windows

#: Batches of videos that are handed out at once: the list of ten million videos is never in memory.
WAVE = 5_000

#: A row between two operators: clips, the keys of their work, and what was done, each as JSON; what is missing for all.
Row = dict[str, str]
Verdicts = Mapping[str, Mapping[str, str]]


def split_videos(
    row: Mapping[str, str], config: CurateConfig, out: Path, verdicts: Verdicts, folder: Path
) -> list[Row]:
    """Probes and splits a batch of videos: a row of videos -> rows of clips. A rejected video goes no further.

    folder: that paths of the settings are relative to.
    """
    os.chdir(folder)
    tallies: dict[str, Tally] = {}
    store = Store(Tools(config, out, verdicts))
    videos = [unpacked(clip) for clip in json.loads(row["clips"])]
    going = [[work for work in works if work.reason is None] for works in batches(videos, store, tallies)]
    return [as_row(works, {} if n else tallies) for n, works in enumerate(going)]


class ClipWorker:
    """Takes batches of clips through their stages; an actor, which keeps its models between them."""

    def __init__(self, config: CurateConfig, out: Path, verdicts: Verdicts, folder: Path) -> None:
        os.chdir(folder)
        self.store, self.stages = Store(Tools(config, out, verdicts)), chosen_stages(config)[1]

    def __call__(self, row: Mapping[str, str]) -> Row:
        tallies: dict[str, Tally] = {}
        added(tallies, json.loads(row["tallies"]))
        clips, keys = [unpacked(clip) for clip in json.loads(row["clips"])], json.loads(row["keys"])
        works = [self.store.resume(clip, key) for clip, key in zip(clips, keys, strict=True)]
        try:
            advance(works, self.stages, self.store, tallies)
        except SetupError as error:  # raised here, it would come out of Ray as pages of its own
            return as_row([], tallies, str(error))
        return as_row([], tallies)


def as_row(works: Sequence[Work], tallies: Mapping[str, Tally], missing: str = "") -> Row:
    clips, keys = [packed(work.clip) for work in works], [work.key for work in works]
    told = {name: asdict(tally) for name, tally in tallies.items()}
    return {"clips": json.dumps(clips), "keys": json.dumps(keys), "tallies": json.dumps(told), "missing": missing}


def packed(clip: Clip) -> dict[str, Any]:
    return {f.name: getattr(clip, f.name) for f in fields(Clip)}


def unpacked(values: Mapping[str, Any]) -> Clip:
    return changed(Clip("", ""), values)


def added(tallies: dict[str, Tally], more: Mapping[str, Mapping[str, float]]) -> None:
    """Add what another worker did."""
    for name, one in more.items():
        tally = tallies.setdefault(name, Tally())
        tally.clips += int(one["clips"])
        tally.seconds += one["seconds"]


def check_reachable(address: str) -> None:
    """ValueError unless something listens at HOST:PORT, for which Ray itself would wait ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"There is no Ray cluster at {address!r} ({error}); give HOST:PORT of its head, as ray start --head says."
        ) from error


def fill(config: CurateConfig, out: Path, verdicts: Verdicts, address: str) -> dict[str, Tally]:
    """Run the stages on Ray; what they made is in the state of ``out``. Returns what each stage did, over all workers.

    address: HOST:PORT of a cluster; "" starts Ray on this machine for as long as this lasts.
    Raises ValueError where Ray is not installed or the cluster not there, and for models that are not there.
    """
    if not address:  # Ray does what it is told by whoever reaches it: that is this machine only
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        ray: Any = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise ValueError("--ray needs Ray Data; install it with pip install 'ray[data]'.") from error
    # Two at least: one for the videos, one for the clips.
    cores = None if address else max(2, os.cpu_count() or 1)
    if address:
        check_reachable(address)
    ray.init(address=address or None, num_cpus=cores, include_dashboard=False, log_to_driver=False)
    tallies: dict[str, Tally] = {}
    try:
        gpus, cores = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        common = {"config": config, "out": out, "verdicts": dict(verdicts), "folder": Path.cwd()}
        held = {"num_gpus": 1} if gpus else {"num_cpus": 1}  # by each worker for as long as it lives
        workers = ray.data.ActorPoolStrategy(min_size=1, max_size=gpus or max(1, cores - 1))
        for wave in windows(listed(config), WAVE):
            items = [{"clips": json.dumps([packed(video) for video in videos])} for videos, _ in wave]
            data = ray.data.from_items(items, override_num_blocks=len(items))  # what is lost with a worker is one batch
            data = data.flat_map(split_videos, fn_kwargs=common)
            data = data.map(ClipWorker, fn_constructor_kwargs=common, compute=workers, **held)
            for row in data.iter_rows():
                if row["missing"]:
                    raise ValueError(row["missing"])
                added(tallies, json.loads(row["tallies"]))
    finally:
        ray.shutdown()
    return tallies

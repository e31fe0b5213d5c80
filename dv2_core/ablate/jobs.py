"""The work of an ablation: trainings, each done by whoever holds its lock, and what is measured with their weights.

Every result is one JSON file, so an interrupted command goes on where it was. A lock ends with its process, so nothing
is left behind by one that was killed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import safe_open

from ..evaluate.detector import Detector
from ..evaluate.pairs import Pair
from ..evaluate.run import check_settings
from ..evaluate.scores import shuffled
from ..evaluate.sheet import random_sheet
from ..world.atlas import Atlas
from ..world.latent import MiniVAE
from . import measure
from .rows import ROWS, UNTRAINED, Row
from .study import Study, validation_pairs

if TYPE_CHECKING:
    from ..train.config import TrainConfig

REAL, DECODED, SHUFFLED = "real clips", "real clips through the VAE", "real clips, shuffled boxes"
REFERENCES = {REAL: "real", DECODED: "decoded", SHUFFLED: "shuffled"}  # -> name of the file


@dataclass(frozen=True)
class Job:
    """One training and everything that is measured with its weights: its own row and rows that only sample."""

    trained: Row
    seed: int
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        return f"{self.trained.name}-seed{self.seed}"

    def missing(self, study: Study) -> list[tuple[Row, int]]:
        """Rows and steps without a result, in the order of the steps."""
        wanted = [(row, step) for row in self.rows for step in study.checkpoints(row)]
        return sorted(
            ((row, step) for row, step in wanted if not study.result_file(row, self.seed, step).exists()),
            key=lambda one: one[1],
        )


def jobs_of(study: Study, rows: Sequence[Row]) -> list[Job]:
    """All rows of the first seed, then those of the next: a whole table of one seed comes first."""
    wanted = {row.weights_of or row.name for row in rows}
    trained = [row for row in ROWS if row.name in wanted]
    jobs = [Job(UNTRAINED, study.seeds[0], (UNTRAINED,))]
    for seed in study.seeds:
        jobs += [Job(one, seed, tuple(r for r in rows if one.name in (r.name, r.weights_of))) for one in trained]
    return jobs


def run(study: Study, jobs: Sequence[Job]) -> None:
    """Do what is missing; a job that another process holds is left to it.

    Raises ValueError if the folder holds results of other weights or settings."""
    from tqdm import tqdm

    study.out.mkdir(parents=True, exist_ok=True)
    with FileLock(study.out / "settings.lock"):
        check_settings(study.out / "settings.json", study.settings())
    atlas = Atlas.load(study.atlas)
    pairs = validation_pairs(atlas, study.pairs, **study.clips)
    detector = Detector.load(study.detector)
    with claim(study.out / "claims" / "references.lock") as held:
        if held:
            measure_references(study, pairs, detector)
    with tqdm(total=len(jobs), unit="training", desc="ablation") as bar:
        for job in jobs:
            with claim(study.out / "claims" / f"{job.name}.lock") as held:
                if held:
                    do(study, job, pairs, detector)
            bar.update()


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Yields whether the lock is ours; False where another living process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def do(study: Study, job: Job, pairs: list[Pair], detector: Detector) -> None:
    """Train to every step at which something is missing, and measure it there."""
    from .sample import Sampler

    folder = study.out / "trainings" / job.name
    for row, step in job.missing(study):
        started, before = time.monotonic(), exported_step(folder)
        weights = train_to(study.config(job.trained, job.seed), folder, step) if step else study.base
        trained = time.monotonic()
        print(f"\n{job.name}: measuring {row.name} at step {step}", flush=True)
        clips = Sampler(study, row, job.seed, weights).clips(pairs)
        values = measure.measure(clips, pairs, detector)
        if step == study.checkpoints(row)[-1]:
            picture = study.out / "sheets" / f"{row.name}-seed{job.seed}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            random_sheet(pairs, clips, values["mIoU"]).save(picture)
        about = {
            "row": row.name, "seed": job.seed, "step": step, "adapter": row.adapter,
            "trained_clips": max(step - before, 0) * study.training["batch"],
            "train_seconds": round(trained - started, 1), "measure_seconds": round(time.monotonic() - trained, 1),
        }  # fmt: skip
        measure.save(study.result_file(row, job.seed, step), values, about)
    # The exported weights stay; what only resuming needs goes.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def train_to(config: TrainConfig, folder: Path, step: int) -> Path:
    """The weights of a training after `step` steps: the folder of its export. Goes on from a checkpoint."""
    from ..train.loop import train

    if exported_step(folder) > step:
        shutil.rmtree(folder)  # the weights of an earlier step are gone: the same training again makes the same ones
    if exported_step(folder) != step:
        train(config, folder, stop_after=step)
    if exported_step(folder) != step:
        raise ValueError(f"{folder} has a checkpoint of step {step} without its weights; delete that folder.")
    return folder / "export"


def exported_step(folder: Path) -> int:
    """The step of the weights in a training's export, 0 if there are none. The adapter is written last."""
    from ..train.files import ADAPTER

    path = folder / "export" / ADAPTER
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["training.step"])


def measure_references(study: Study, pairs: list[Pair], detector: Detector) -> None:
    """The real clips as they are, through the decoder, and against the boxes of other pairs."""
    import torch

    from ..evaluate.pairs import to_bytes

    vae = MiniVAE.load(study.vae)
    for name, file in REFERENCES.items():
        path = reference_file(study, name)
        if path.exists():
            continue
        clips = [pair.real for pair in pairs]
        if name == DECODED:
            with torch.no_grad():
                clips = [to_bytes(vae.decode(vae.encode(pair.clip.frames))) for pair in pairs]
        values = measure.measure(clips, pairs, detector, shuffled(pairs) if name == SHUFFLED else None)
        measure.save(path, values, {"reference": file})


def reference_file(study: Study, name: str) -> Path:
    return study.out / "references" / f"{REFERENCES[name]}.json"


def results(study: Study) -> dict[str, dict[int, dict[int, measure.Values]]]:
    """Everything that is there: row -> step -> seed -> values.

    Raises ValueError for a result of a row whose settings have changed since."""
    found: dict[str, dict[int, dict[int, measure.Values]]] = {}
    for row in (UNTRAINED, *ROWS):
        for path in sorted((study.out / "results" / row.name).glob("*.json")):
            values, about = measure.load(path)
            if about["adapter"] != as_read(row.adapter):
                raise ValueError(f"{path} was measured with other settings of the row {row.name}; delete it.")
            found.setdefault(row.name, {}).setdefault(about["step"], {})[about["seed"]] = values
    return found


def as_read(values: dict[str, Any]) -> dict[str, Any]:
    """As a JSON file gives it back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

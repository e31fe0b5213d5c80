"""``python -m dv2_core ablate``: train and measure every row from one fixed base, and write the table."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ..evaluate.detector import DEFAULT_FILE
from ..evaluate.engine import PACK
from . import measure, table
from .directions import against_full, verdicts
from .figure import plot
from .jobs import DECODED, REFERENCES, SHUFFLED, Job, exported_step, jobs_of, reference_file, results, run
from .rows import PROTOCOLS, ROWS, UNTRAINED, named
from .study import Study

MODELS = PACK / "models"
TRAIN_CLIPS_PER_SECOND = 13.0  # the miniature on one CPU core; replaced by the folder's own as soon as it has any
MEASURE_SECONDS = 1.8  # per clip of 25 guided steps, decoding and scoring included


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [row.name for row in ROWS]
    default = {field.name: field.default for field in fields(Study)}
    parser.add_argument(
        "--base", type=Path, help="export folder of a trained base, the start of all (default: the miniature's)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for results, table, sheets and figure")
    parser.add_argument("--rows", nargs="+", choices=names, default=names, help="which rows (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the trainings (default: 0 1)")
    parser.add_argument(
        "--steps", type=int, default=default["steps"], help="optimiser steps of every training (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, default=default["pairs"], help="validation pairs, 1 to 48 (default: %(default)s)"
    )
    parser.add_argument(
        "--protocol", choices=list(PROTOCOLS), default="frozen",
        help="frozen: only the adapter learns (the paper's, and the default); unfrozen: the base too",
    )  # fmt: skip
    parser.add_argument(
        "--atlas", type=Path, default=Path("runs/world/atlas.safetensors"), help="sprites (default: %(default)s)"
    )
    parser.add_argument("--plan", action="store_true", help="only print what is left to do and how long it takes")


def main(arguments: argparse.Namespace) -> None:
    study = Study(
        base=arguments.base or shipped_base(arguments.out / "base"), out=arguments.out, atlas=arguments.atlas,
        vae=MODELS / "vae" / "dv2-mini-vae.safetensors", detector=DEFAULT_FILE, protocol=arguments.protocol,
        steps=arguments.steps, pairs=arguments.pairs, seeds=tuple(arguments.seeds),
    )  # fmt: skip
    jobs = jobs_of(study, named(arguments.rows))
    print(plan(study, jobs), flush=True)
    if not arguments.plan:
        run(study, jobs)
        print(report(study))
        waiting = [job.name for job in jobs if job.missing(study)]
        if waiting:
            print(f"other processes are still at work on {waiting}; the last to end writes the whole table.")


def shipped_base(folder: Path) -> Path:
    """The miniature's base and text encoder as an export without an adapter, in `folder`."""
    from filelock import FileLock

    from ..train.files import BASE, TEXT

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "copying.lock"):
        for path in (MODELS / "diffusion_models" / BASE, MODELS / "text_encoders" / TEXT):
            if not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)
    return folder


def plan(study: Study, jobs: Sequence[Job]) -> str:
    """What is left to do, and an estimate of the time on one core."""
    clip_seconds, pair_seconds = rates(study)
    batch = study.training["batch"]
    lines = [f"{study.protocol} base, seeds {list(study.seeds)}, {study.steps} steps of {batch}, {study.pairs} pairs"]
    training = measuring = 0
    for job in jobs:
        missing = job.missing(study)
        done = exported_step(study.out / "trainings" / job.name)
        steps = max((step for _, step in missing), default=done) - done
        training, measuring = training + steps, measuring + len(missing)
        if missing:
            lines.append(f"  {job.name}: {steps} steps to train, {len(missing)} times to measure")
    hours = (training * batch * clip_seconds + measuring * study.pairs * pair_seconds) / 3600
    lines.append(
        f"{training} training steps and {measuring} measurements are left: about {hours:.1f} hours on one core "
        f"({1 / clip_seconds:.1f} clips/s in training, {pair_seconds:.1f} s per sampled clip)"
    )
    return "\n".join(lines)


def rates(study: Study) -> tuple[float, float]:
    """Seconds per trained clip and per measured pair: medians of this folder's results, else those of a CPU core."""
    about = [measure.load(path)[1] for path in study.out.glob("results/*/*.json")]
    trained = sorted(a["train_seconds"] / a["trained_clips"] for a in about if a["trained_clips"])
    measured = sorted(a["measure_seconds"] / study.pairs for a in about)
    return (
        trained[len(trained) // 2] if trained else 1 / TRAIN_CLIPS_PER_SECOND,
        measured[len(measured) // 2] if measured else MEASURE_SECONDS,
    )


def report(study: Study) -> str:
    """Write table.md, table.json, table.csv and figure.png from all results in the folder; returns the Markdown."""
    found = results(study)
    references = {name: measure.load(path)[0] for name in REFERENCES if (path := reference_file(study, name)).exists()}
    lines = [
        table.line(row, found[row.name][step])
        for row in (UNTRAINED, *ROWS)
        if (step := study.checkpoints(row)[-1]) in found.get(row.name, {})
    ]
    if len(references) < len(REFERENCES) or not lines:
        return "There are no results yet."
    plot(found, references[DECODED], references[SHUFFLED], study.out / "figure.png")
    judged = verdicts(found, references[DECODED], study.steps)
    differences = against_full(found, study.steps, table.AGAINST)
    return table.write(
        study.out, lines, [table.reference_line(*one) for one in references.items()], judged, differences,
        study.settings(),
    )  # fmt: skip

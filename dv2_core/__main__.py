"""``python -m dv2_core VERB``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .ablate import run as ablation
from .bench import run as benchmark
from .curate import command as curation
from .evaluate import run as evaluation


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dv2_core", description="DreamVideo-2: training, data, ablations, evaluation, speed."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    training = verbs.add_parser("train", help="train as a preset or a TOML file says; resumes by itself")
    training.add_argument("config", help="a .toml file, or the name of a preset such as mini or modelscope-448x256")
    training.add_argument("--out", type=Path, help="folder for checkpoints, log, samples, report, weights")
    training.add_argument("--stop-after", type=int, help="end at this step; the schedule stays that of all steps")
    training.add_argument("--dry-run", action="store_true", help="print sizes, memory and time; write nothing")
    training.add_argument("--processes", type=int, default=1, help="of the run that --dry-run is about (default: 1)")
    training.set_defaults(run=train)
    reporting = verbs.add_parser("report", help="write the report of a training, or compare several")
    reporting.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="--out folders of trainings")
    reporting.add_argument("--out", type=Path, help="the HTML file (default: report.html in the first folder)")
    reporting.set_defaults(run=report)
    evaluating = verbs.add_parser("evaluate", help="measure the miniature, or run a benchmark, in a real ComfyUI")
    evaluation.add_arguments(evaluating)
    evaluating.set_defaults(run=evaluation.main)
    ablating = verbs.add_parser("ablate", help="the paper's ablations in miniature, from one fixed base; resumes")
    ablation.add_arguments(ablating)
    ablating.set_defaults(run=ablation.main)
    curating = verbs.add_parser("curate", help="a data set for the trainer out of videos; resumes by itself")
    curation.add_arguments(curating)
    curating.set_defaults(run=curation.main)
    measuring = verbs.add_parser("bench", help="speed and memory beside diffusers and ModelScope, in turns")
    benchmark.add_arguments(measuring)
    measuring.set_defaults(run=benchmark.main)
    converting = verbs.add_parser("convert", help="a base file between original and diffusers names, to safetensors")
    converting.add_argument("source", type=Path, metavar="SRC", help="a base file, or a folder with unet/")
    converting.add_argument(
        "target", type=Path, metavar="DST", help="a new .safetensors file; for diffusers or a folder"
    )
    converting.add_argument("--to", required=True, choices=("original", "diffusers"), help="names in the new file")
    converting.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), help="precision (default: as it is)")
    predicts = "what the base predicts, noted for the loader (default: what the file says)"
    converting.add_argument("--prediction", choices=("eps", "v", "v_zsnr", "v_cosine_zsnr"), default="", help=predicts)
    converting.set_defaults(run=convert)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, FloatingPointError) as error:
        sys.exit(str(error))


def train(arguments: argparse.Namespace) -> None:
    from .train.config import TrainConfig  # needs the extra "train"

    config = TrainConfig.load(arguments.config)
    if arguments.dry_run:
        from .train.dry_run import dry_run

        print(dry_run(config, arguments.processes))
        return
    if arguments.out is None:
        raise ValueError("train needs --out DIR, the folder for everything that it writes.")
    from accelerate import PartialState

    from .train.loop import train as run

    try:
        run(config, arguments.out, arguments.stop_after)
    finally:
        PartialState().destroy_process_group()


def report(arguments: argparse.Namespace) -> None:
    from .train.report import write_report  # needs the extra "train"

    print(write_report(arguments.folders, arguments.out))


def convert(arguments: argparse.Namespace) -> None:
    from .checkpoints import convert as run
    from .checkpoints.converter import DTYPES

    dtype = DTYPES[arguments.dtype] if arguments.dtype else None
    print(run(arguments.source, arguments.target, arguments.to, dtype, arguments.prediction))


if __name__ == "__main__":
    main(sys.argv[1:])

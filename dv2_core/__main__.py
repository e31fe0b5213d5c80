"""``python -m dv2_core VERB``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .evaluate import run as evaluation


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m dv2_core", description="DreamVideo-2: training and evaluation.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    training = verbs.add_parser("train", help="train as a TOML file says; resumes by itself")
    training.add_argument("config", type=Path)
    training.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log, previews, weights")
    training.add_argument("--stop-after", type=int, help="end at this step; the schedule stays that of all steps")
    training.set_defaults(run=train)
    evaluating = verbs.add_parser("evaluate", help="measure the miniature through the nodes in a real ComfyUI")
    evaluation.add_arguments(evaluating)
    evaluating.set_defaults(run=evaluation.main)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)


def train(arguments: argparse.Namespace) -> None:
    from .train.config import TrainConfig  # needs the extra "train"
    from .train.loop import train as run

    run(TrainConfig.from_toml(arguments.config), arguments.out, arguments.stop_after)


if __name__ == "__main__":
    main(sys.argv[1:])

"""``python -m dv2_core VERB``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m dv2_core", description="DreamVideo-2: training and evaluation.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    train = verbs.add_parser("train", help="train as a TOML file says; resumes by itself")
    train.add_argument("config", type=Path)
    train.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoint, log, previews and exported weights"
    )
    train.add_argument(
        "--stop-after", type=int, help="end at this step with a checkpoint; the schedule stays that of steps"
    )
    verbs.add_parser("evaluate", help="measure the miniature through the nodes; see evaluate --help", add_help=False)
    arguments, rest = parser.parse_known_args(argv)
    if arguments.verb == "evaluate":  # has a parser of its own, so that its imports are paid only when it is used
        from .evaluate.run import main as evaluate

        evaluate(rest)
        return
    parser.parse_args(argv)
    from .train.config import TrainConfig
    from .train.loop import train as run

    run(TrainConfig.from_toml(arguments.config), arguments.out, arguments.stop_after)


if __name__ == "__main__":
    main(sys.argv[1:])

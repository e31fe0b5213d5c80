"""``python -m dv2_core VERB``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m dv2_core", description="DreamVideo-2: training and evaluation.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="train as a TOML file says; resumes by itself")
    train.add_argument("config", type=Path)
    train.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoint, log, previews and exported weights"
    )
    arguments = parser.parse_args(argv)
    if arguments.verb == "train":
        from .train.config import TrainConfig
        from .train.loop import train as run

        run(TrainConfig.from_toml(arguments.config), arguments.out)


if __name__ == "__main__":
    main(sys.argv[1:])

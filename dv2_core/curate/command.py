"""``python -m dv2_core curate CONFIG_OR_FOLDER --out DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .run import Counts
    from .state import Tally


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a .toml file, or a folder, a list (.jsonl, .csv) or shards (.tar) of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder for the data set; a second run goes on there")
    parser.add_argument("--verdicts", type=Path, help="verdicts.json from the audit page; kept in --out")
    where = "run on Ray Data: all of this machine, or the cluster of that address (needs ray[data])"
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help=where)


def main(arguments: argparse.Namespace) -> None:
    from .audit import keep_verdicts  # needs the extra "curate"
    from .config import CurateConfig
    from .run import MANIFEST, PAGE, curate

    config = CurateConfig.load(arguments.source)
    verdicts = keep_verdicts(arguments.out, arguments.verdicts)
    done: dict[str, Tally] = {}
    try:
        if arguments.ray is not None:
            from .cluster import fill

            done = fill(config, arguments.out, verdicts, arguments.ray)
        counts, tallies = curate(config, arguments.out, verdicts)
    except KeyboardInterrupt:
        raise ValueError("Stopped. The same command goes on from here.") from None
    print(summary(counts, {**tallies, **done}))
    print(f"written: {arguments.out / MANIFEST}, {arguments.out / PAGE}")


def summary(counts: Counts, tallies: Mapping[str, Tally]) -> str:
    """Counts per stage, and the speed of what was done in this run."""
    from .stages import CLIP_STAGES, VIDEO_STAGES

    lines = [f"{counts.accepted} of {counts.clips} clips accepted, from {counts.videos} videos"]
    lines.append(f"{'stage':<10}{'rejected':>9}{'run now':>9}{'seconds':>9}{'clips/s':>9}  reasons")
    for name in ("import", *(stage.name for stage in (*VIDEO_STAGES, *CLIP_STAGES))):
        codes, tally = counts.rejected.get(name, {}), tallies.get(name)
        if not codes and tally is None:
            continue
        reasons = ", ".join(f"{code} {number}" for code, number in sorted(codes.items()))
        speed = (
            f"{tally.clips:>9}{tally.seconds:>9.1f}{tally.clips / max(tally.seconds, 1e-9):>9.1f}"
            if tally
            else " " * 27
        )
        lines.append(f"{name:<10}{sum(codes.values()):>9}{speed}  {reasons}".rstrip())
    return "\n".join(lines)

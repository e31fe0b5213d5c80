"""The log: JSON lines, which are the truth, and TensorBoard beside them where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class RunLog:
    """Writes ``log.jsonl``: one object per line with "step" (optimiser steps done) and "kind".

    Kinds: "train" (loss, mse, inside, outside, norm, lr, clips_per_second, seconds), "validation" (loss, mse, inside,
    outside, and ``by_timestep``: {timestep: {loss, ...}}) and "samples" (file). A training with ``directions`` has
    ``word_left``, ... too, and before its first step rows of kind "lesson".
    """

    def __init__(self, out: Path, step: int) -> None:
        """Open for going on after ``step``: rows of later steps are dropped, so that none is logged twice."""
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "log.jsonl"
        rows = [row for row in read_log(self.path) if row["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        temporary.replace(self.path)
        self.board = tensorboard(out / "tensorboard", step)

    def write(self, kind: str, step: int, **values: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(f"{kind}/{name}", value, step)
            for timestep, figures in values.get("by_timestep", {}).items():
                self.board.add_scalar(f"validation_by_timestep/{timestep}", figures["mse"], step)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def read_log(path: Path) -> list[Row]:
    """The rows of a log; a last line that a kill cut short is left out. An absent file has none."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def tensorboard(folder: Path, step: int) -> Any:
    """A SummaryWriter, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)

"""Paired measurement: two sides take turns in one process, and what counts is the ratio within each turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

Side = Callable[[], Any]


def seconds(run: Side, device: torch.device, clock: str = "wall") -> float:
    """How long one call takes. On a GPU between two events of its stream, whatever the clock.

    clock: "wall", or "process" for the seconds that this process computed, so that other load on a CPU does not count.
    """
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1000
    now = time.process_time if clock == "process" else time.perf_counter
    started = now()
    run()
    return now() - started


def peak_memory(run: Side, device: torch.device) -> tuple[Any, int]:
    """What a call returns, and the most bytes of tensors that it had alive at once beyond what was there before.

    CUDA's allocator counts by itself. On a CPU every operation's results are counted; a kernel's scratch is not.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    from ..train.dry_run import Meter  # the extra "train"

    with Meter() as meter:
        result = run()
    return result, meter.peak


@dataclass(frozen=True)
class Comparison:
    """One row of the table: ``ours`` against ``anchor``.

    Attributes:
        ours, anchor: seconds of every call, in the order of the turns.
        memory: peak bytes of one call of each, or None where it was not measured.
        difference: of the two results, max |a - b| / max |b|; None where they are not to be the same.
    """

    row: str
    ours_name: str
    anchor_name: str
    ours: tuple[float, ...]
    anchor: tuple[float, ...]
    memory: tuple[int, int] | None = None
    difference: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.anchor, strict=True)]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Of the ratios; with one turn there is no spread."""
        if len(self.ratios) == 1:
            return self.ratios[0], self.ratios[0]
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.median, "quartiles": self.quartiles}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Comparison:
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**{k: v for k, v in known.items() if k not in ("ratio", "quartiles")})


def compare(row: str, ours: tuple[str, Side], anchor: tuple[str, Side], device: torch.device, turns: int,
            clock: str = "wall", same: bool = True, memory: bool = True) -> Comparison:  # fmt: skip
    """Run both sides in turn, the first one first in every other turn.

    Args:
        ours, anchor: name and call.
        same: both return the same tensor within rounding; how far apart they are is noted.
        memory: measure the peak of one call of each. That call warms up; without it a plain call does.
    """
    results, peaks = [], []
    for _, run in (ours, anchor):
        result, peak = peak_memory(run, device) if memory else (run(), 0)
        results.append(result if same else None)
        peaks.append(peak)
    difference = relative_difference(*results) if same else None
    del results, result
    spent: dict[str, list[float]] = {"ours": [], "anchor": []}
    sides = {"ours": ours[1], "anchor": anchor[1]}
    for turn in range(turns):
        for name in sorted(sides, reverse=turn % 2 == 0):
            spent[name].append(seconds(sides[name], device, clock))
    return Comparison(
        row, ours[0], anchor[0], tuple(spent["ours"]), tuple(spent["anchor"]),
        (peaks[0], peaks[1]) if memory else None, difference,
    )  # fmt: skip


def relative_difference(ours: Tensor, anchor: Tensor) -> float:
    """max |ours - anchor| / max |anchor|."""
    return float((ours.float() - anchor.float()).abs().max() / anchor.float().abs().max())


def table(found: list[Comparison]) -> str:
    """Markdown: medians, the quartiles of the ratio, and peak memory."""
    head = ["row", "ours", "anchor", "ours, s", "anchor, s", "ratio", "quartiles", "memory, MiB", "difference"]
    rows = [head, ["---"] * len(head)]
    for c in found:
        low, high = c.quartiles
        rows.append([
            c.row, c.ours_name, c.anchor_name, f"{statistics.median(c.ours):.3g}",
            f"{statistics.median(c.anchor):.3g}", f"**{c.median:.3f}**", f"{low:.3f}-{high:.3f}",
            "" if c.memory is None else " / ".join(f"{size / 2**20:,.0f}" for size in c.memory),
            "" if c.difference is None else f"{c.difference:.0e}",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)

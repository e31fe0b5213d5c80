"""How long boxes take from one format to another: seconds of processor time, reading and writing apart."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dv2_core.boxes import BoxPlan, BoxTrack
from dv2_core.boxes.formats import FORMATS, read_any, write


class FormatTime(NamedTuple):
    """Seconds for one format. subjects: how many it was given; 1 for the formats that hold one."""

    fmt: str
    subjects: int
    write: float
    read: float


def format_times(frames: int = 1000, subjects: int = 4, width: int = 448, height: int = 256) -> list[FormatTime]:
    """One row for every format that can be written. Converting takes one's `read` and another's `write`."""
    plan = moving_plan(frames, subjects, width, height)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for fmt, form in FORMATS.items():
            if form.write is not None:
                rows.append(_measure(fmt, plan, Path(folder, fmt)))
    return rows


def slowest_conversion(rows: list[FormatTime]) -> tuple[str, str, float]:
    """(from, to, seconds) of the pair of different formats that takes longest."""
    pairs = ((a.fmt, b.fmt, a.read + b.write) for a in rows for b in rows if a.fmt != b.fmt)
    return max(pairs, key=lambda pair: pair[2])


def moving_plan(frames: int, subjects: int, width: int, height: int) -> BoxPlan:
    """Boxes that jump about, hidden in a tenth of the frames: nothing that a writer could leave out."""
    rng = random.Random(0)
    tracks = []
    for n in range(subjects):
        corners = [(rng.uniform(0, 0.6), rng.uniform(0, 0.6)) for _ in range(frames)]
        boxes = tuple((x, y, x + rng.uniform(0.1, 0.4), y + rng.uniform(0.1, 0.4)) for x, y in corners)
        tracks.append(BoxTrack(boxes, tuple(rng.random() < 0.9 for _ in range(frames)), str(n + 1)))
    return BoxPlan(tuple(tracks), width, height)


def _measure(fmt: str, plan: BoxPlan, folder: Path) -> FormatTime:
    track, subjects = None, len(plan.tracks)
    if fmt in ("text", "mask") or fmt.startswith("bbox_"):  # they hold one subject
        track, subjects = "", 1
    value, written = _timed(lambda: write(plan, fmt, folder, track))
    _, read = _timed(lambda: read_any(value, plan.width, plan.height, plan.length, fmt, size=(40, 40)))
    return FormatTime(fmt, subjects, written, read)


def _timed(job: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = job()
    return result, time.process_time() - start


if __name__ == "__main__":
    times = format_times()
    print("| format | subjects | write (s) | read (s) |\n| --- | --- | --- | --- |")
    for row in times:
        print(f"| {row.fmt} | {row.subjects} | {row.write:.3f} | {row.read:.3f} |")
    source, target, seconds = slowest_conversion(times)
    print(f"\nslowest conversion: {source} to {target}, {seconds:.2f} s")

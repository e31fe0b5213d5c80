"""Speed of the box sequences on one core: 1000 frames, 4 tracks, canvas 448 x 256. Prints CPU seconds, least of three.

Bars: any format to any other (its reading plus the other's writing) and every evaluation under 1 s; masks of
[1000, 256, 448], made or read, under 2 s.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy are imported

import math  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dv2_core.boxes import (  # noqa: E402
    BoxPlan,
    BoxTrack,
    Keyframe,
    KeyframePlan,
    KeyframeTrack,
    check_plan,
    draw_boxes,
    fill_gaps,
    from_detections,
    from_masks,
    rasterize,
    smooth,
)
from dv2_core.boxes.formats import FORMATS, read_any, write  # noqa: E402

FRAMES, TRACKS, WIDTH, HEIGHT = 1000, 4, 448, 256
REPEATS = 3

#: Formats that hold one subject.
SINGLE = {"text", "bbox_xyxy", "bbox_xywh", "bbox_dict", "mask"}


def document() -> KeyframePlan:
    """Every kind of motion: a keyframe every ten frames, with easings and paths, straight and smooth."""
    draw = random.Random(0)
    tracks = []
    for n in range(TRACKS):
        keys = []
        for k, frame in enumerate(range(0, FRAMES, 10)):
            x, y, half = draw.uniform(0.2, 0.8), draw.uniform(0.2, 0.8), draw.uniform(0.05, 0.15)
            path = tuple((u / 20, draw.random(), draw.random()) for u in range(21)) if k % 3 == 2 else ()
            easing = ("linear", "ease-in", "ease-out", "ease-in-out", "hold")[k % 5]
            keys.append(Keyframe(frame, (x - half, y - half, x + half, y + half), easing, k % 17 != 5, path))
        tracks.append(KeyframeTrack(tuple(keys), str(n), f"subject {n}", "smooth" if n % 2 else "linear"))
    return KeyframePlan(tuple(tracks), WIDTH, HEIGHT, FRAMES)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Least CPU time of REPEATS runs, and the last result."""
    best, result = math.inf, None
    for _ in range(REPEATS):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def row(name: str, work: Callable[[], Any]) -> Any:
    taken, result = seconds(work)
    print(f"{name:44}{taken:8.3f} s", flush=True)
    return result


def own_work(plan: KeyframePlan) -> BoxPlan:
    """Prints the rows of everything that is no format."""
    text = row("keyframe document to text", plan.to_json)
    row(f"keyframe document from text ({len(text) // 1000} kB)", lambda: KeyframePlan.from_json(text))
    boxes: BoxPlan = row("keyframes to boxes", plan.evaluate)
    row("boxes to keyframes", lambda: KeyframePlan.from_plan(boxes))
    row("resample to 1500 frames", lambda: boxes.resample(1500))
    row("pre-flight checks of a document", lambda: check_plan(plan, FRAMES, 16, 0.1, (0.01, 0.5)))
    row("fill gaps and smooth", lambda: [smooth(fill_gaps(track, 4)) for track in boxes.tracks])
    found = [[(track.boxes[t], 0.5 + 0.1 * n) for n, track in enumerate(boxes.tracks)] for t in range(FRAMES)]
    row("link 4 candidates a frame", lambda: from_detections(found))
    return boxes


def pixel_work(track: BoxTrack, other: BoxTrack) -> None:
    """Prints the rows of masks and pictures."""
    mask = row(f"masks [{FRAMES}, {HEIGHT}, {WIDTH}] of a track", lambda: rasterize(track, WIDTH, HEIGHT))
    row("boxes of these masks", lambda: from_masks(mask))
    both = torch.maximum(mask, rasterize(other, WIDTH, HEIGHT))
    row("boxes of the largest piece of masks", lambda: from_masks(both, "largest"))
    row("boxes of a followed piece of masks", lambda: from_masks(both, "follow"))
    frames = torch.zeros(100, HEIGHT, WIDTH, 3)
    short = BoxTrack(track.boxes[:100])
    row("boxes drawn on 100 frames, numbered", lambda: draw_boxes(frames, short, numbers=True))


def format_work(plan: BoxPlan) -> None:
    """Prints a row per format, and the slowest pair."""
    reads: dict[str, float] = {}
    writes: dict[str, float] = {}
    for name, form in FORMATS.items():
        if form.write is None:
            continue
        track = "" if name in SINGLE else None
        with tempfile.TemporaryDirectory() as place:
            numbers = iter(range(1000))

            def written(name: str = name, track: str | None = track, place: str = place, numbers: Any = numbers) -> Any:
                folder = Path(place, str(next(numbers))) if FORMATS[name].folder else None
                return write(plan, name, folder, track)

            writes[name], value = seconds(written)
            size = (40.0, 40.0) if form.sized else None
            reads[name], _ = seconds(lambda v=value, n=name, s=size: read_any(v, WIDTH, HEIGHT, FRAMES, n, size=s))
        print(f"{name:28} write{writes[name]:8.3f} s   read{reads[name]:8.3f} s", flush=True)
    slow_read, slow_write = max(reads, key=reads.__getitem__), max(writes, key=writes.__getitem__)
    taken = reads[slow_read] + writes[slow_write]
    print(f"slowest conversion: {slow_read} to {slow_write}, {taken:.3f} s")


def main() -> None:
    torch.set_num_threads(1)
    boxes = own_work(document())
    pixel_work(boxes.tracks[0], boxes.tracks[1])
    format_work(boxes)


if __name__ == "__main__":
    main()

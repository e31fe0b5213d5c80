"""What a benchmark leaves in its folder: table with the paper's rows, CSV, JSON, plots, side-by-side videos."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .adherence import to_bytes
from .benchmark import Video
from .clips import write_whole
from .draw import BLUE, ORANGE, Line, chart, overlay
from .judge import BEYOND, PAPER, Score
from .metrics import Array, bootstrap_interval, paired
from .pairs import to_frames
from .paper import ROWS
from .report import markdown
from .scores import Estimate, mean

#: Condition -> sampling seed -> the scores of all videos, in their order.
Scores = Mapping[str, Mapping[int, Sequence[Score]]]

NAMES = (*PAPER, *BEYOND)
NAME_BYTES = 240  # of a file name, before its ending
ABSENT = "-"


# --- tables -----------------------------------------------------------------------------------------------------------


def values_of(seeds: Mapping[int, Sequence[Score]], name: str) -> Array:
    """One metric of one condition: float64 [videos, seeds]."""
    return np.array([[score["values"][name] for score in scores] for scores in seeds.values()], float).T


def estimates(seeds: Mapping[int, Sequence[Score]]) -> dict[str, Estimate]:
    """Every metric that was measured: its mean over videos and seeds with the 95 % bootstrap interval over videos.

    A video is redrawn with all its seeds; videos without a value do not count."""
    found = {}
    for name in NAMES:
        values = values_of(seeds, name)
        values = values[~np.isnan(values).all(1)]
        if len(values):
            found[name] = (mean(values), *bootstrap_interval(values, seed=0, statistic=mean))
    return found


def results_table(scores: Scores) -> str:
    """Ours, condition by condition, each followed by the paper's rows for it."""
    lines = [["condition", "of", *NAMES]]
    for condition, seeds in scores.items():
        own = estimates(seeds)
        cells = [f"{v:.3f} ({low:.3f}..{high:.3f})" for v, low, high in own.values()]
        ours = dict(zip(own, cells, strict=True))
        lines.append([condition, "**this model**", *(ours.get(name, ABSENT) for name in NAMES)])
        for method, row in ROWS.get(condition, {}).items():
            cells = [f"{row[name]:.3f}" if name in row else ABSENT for name in NAMES]
            lines.append(["", f"{method} (paper)", *cells])
    return markdown(lines)


def compared_table(scores: Scores, others: Scores) -> str:
    """This run minus another one, on the videos that both have. Raises ValueError where they share no condition."""
    lines = [["condition", "metric", "videos", "this - other (95 %)", "this is higher in"]]
    for condition in [c for c in scores if c in others]:
        common = sorted(set(scores[condition]) & set(others[condition]))
        for name in NAMES if common else ():
            mine, theirs = (values_of({s: run[condition][s] for s in common}, name).ravel() for run in (scores, others))
            if np.isnan(mine - theirs).all():
                continue
            found = paired(mine, theirs)
            change = f"{found.difference:+.4f} ({found.low:+.4f}..{found.high:+.4f})"
            lines.append([condition, name, str(found.clips), change, f"{100 * found.higher:.0f} %"])
    if len(lines) == 1:
        raise ValueError("The other run has no condition, seed and metric in common with this one.")
    return markdown(lines)


def write_results(out: Path, scores: Scores, videos: Sequence[Video], about: dict[str, Any], others: Scores) -> str:
    """Write results.md, results.json and results.csv; returns the tables as Markdown.

    others: of the run to compare with; empty for none."""
    text = results_table(scores)
    if others:
        text += "\n\n## Compared with the other run, video by video\n\n" + compared_table(scores, others)
    settings = "\n".join(f"- {key}: {value}" for key, value in about.items())
    _text(out / "results.md", f"# Benchmark\n\n{text}\n\n{NOTES}\n\n{settings}\n")
    rows = {
        condition: {n: dict(zip(("value", "low", "high"), e, strict=True)) for n, e in estimates(seeds).items()}
        for condition, seeds in scores.items()
    }
    paper = {condition: ROWS[condition] for condition in scores if condition in ROWS}
    _text(out / "results.json", json.dumps({"about": about, "rows": rows, "paper": paper}, indent=1) + "\n")
    write_whole(out / "results.csv", partial(_write_csv, scores=scores, videos=videos))
    return text


def _write_csv(path: Path, scores: Scores, videos: Sequence[Video]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["condition", "seed", "video", "subject", "boxes", "prompt", *NAMES])
        for condition, seeds in scores.items():
            for seed, found in seeds.items():
                for video, score in zip(videos, found, strict=True):
                    cells = ["" if math.isnan(v := score["values"][name]) else f"{v:.6f}" for name in NAMES]
                    about = [video.number, video.subject.name, video.path, video.caption]
                    writer.writerow([condition, seed, *about, *cells])


def _text(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


# --- pictures and videos ----------------------------------------------------------------------------------------------


def write_plot(path: Path, condition: str, seeds: Mapping[int, Sequence[Score]]) -> None:
    """Mean IoU and centre distance of all videos, frame by frame, as a PNG; none where no detector has looked."""
    found = [score for scores in seeds.values() for score in scores if score["iou"] is not None]
    if not found:
        return
    lines = [
        Line(name, np.array([mean(frame) for frame in np.array([score[key] for score in found], float).T]), colour)
        for name, key, colour in (("IoU", "iou", BLUE), ("centre distance", "distance", ORANGE))
    ]
    picture = chart(f"{condition}: mean of {len(found)} videos", lines, np.zeros(len(lines[0].values), bool))
    write_whole(path, picture.save)


def side_by_side(video: Video, results: Sequence[tuple[Array, Score]]) -> Array:
    """Subject | requested boxes alone | each result with requested (red) and found (blue) boxes: uint8 [F, H, W, 3].

    results: frames uint8 [F, h, w, 3] and score of each condition."""
    nothing = np.full((video.length, 4), np.nan)
    size = (video.width, video.height)
    subject = torch.from_numpy(video.subject.canvas(*size)).expand(video.length, -1, -1, -1) / 255
    columns = [(subject, nothing, nothing), (torch.full_like(subject, 0.12), video.boxes, nothing)]
    for frames, score in results:
        found = nothing if score["detected"] is None else np.array(score["detected"], float)
        columns.append((to_frames(frames).permute(0, 2, 3, 1), video.boxes, found))
    shown = [to_bytes(overlay(frames, requested, found)) for frames, requested, found in columns]
    return np.concatenate(shown, axis=2)


def write_mp4(path: Path, frames: Array, fps: float) -> None:
    """uint8 [F, H, W, 3] as H.264, written whole or not at all. Odd sides lose a row or column."""
    from fractions import Fraction

    import av  # a part of ComfyUI; not needed for anything else here

    def write(file: Path) -> None:
        with av.open(str(file), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "14"})
            stream.height, stream.width, stream.pix_fmt = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2, "yuv420p"
            for frame in frames[:, : stream.height, : stream.width]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())

    write_whole(path, write)


def vbench_names(captions: Sequence[str]) -> list[str]:
    """File names as VBench wants them: PROMPT-INDEX.mp4, the index counting a prompt's videos from 0.

    What no file name can hold becomes a space, and overlong prompts are cut, at the same place for the same prompt."""
    counts: dict[str, int] = {}
    names = []
    for caption in captions:
        prompt = "".join(" " if c in '/\\:*?"<>|' or ord(c) < 32 else c for c in caption).strip()
        prompt = prompt.encode()[:NAME_BYTES].decode(errors="ignore").strip()
        index = counts.get(prompt, 0)
        counts[prompt] = index + 1
        names.append(f"{prompt}-{index}.mp4")
    return names


NOTES = """Brackets: 95 % bootstrap interval over videos, each with all its sampling seeds. The first nine metrics are
the paper's; its rows are copied from its tables and were measured on its own, unpublished subjects, boxes and prompts,
so only the benchmark `paper` with full-size weights and the paper's networks may be set beside them. mIoU, CD: what
the detector finds against the requested boxes, CD in frame diagonals; a frame without a detection counts as IoU 0 and
CD 1 unless metrics.misses says skip. found: share of frames with a detection. pixels: 1 - half the root mean square
error of what the boxes show against the subject's picture. copy-paste: correlation of their detail, 1 for the very
picture. camera: share of the motion that is the background's; 0 over a still one."""

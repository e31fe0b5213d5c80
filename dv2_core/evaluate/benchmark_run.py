"""A benchmark from its definition to its tables: generate what is missing, score what is missing, write the results.

Clips and scores are files of their own, each written whole: after an interruption of any kind the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Benchmark, Video, load_benchmark
from .benchmark_report import Scores, side_by_side, vbench_names, write_mp4, write_plot, write_results
from .clips import Series, clip_file, load, write_whole
from .judge import Judge, Score
from .prompts import CONDITIONS, MAIN, Setup
from .run import check_settings, chosen_seeds, generate_missing, prepare

SIDE_BY_SIDE = 48  # videos that are also written as side-by-side videos: the first ones


def run_benchmark(arguments: argparse.Namespace) -> None:
    """arguments: of `run.add_arguments`."""
    if arguments.detector is not None:
        raise ValueError("A benchmark's file names its detector; set metrics.detector there, and leave --detector out.")
    benchmark, out = load_benchmark(arguments.benchmark), arguments.out
    videos = benchmark.videos(arguments.pairs)
    seeds = chosen_seeds(arguments.seeds or benchmark.seeds)
    setup = benchmark.setup(steps=arguments.steps, cfg=arguments.cfg, lambda_m=arguments.lambda_m)
    judge = Judge(
        benchmark.metrics, "cuda" if arguments.device == "gpu" else "cpu"
    )  # missing networks are told before anything is generated
    files, settings = prepare(out, arguments.weights, setup, {"videos": benchmark.digest()})
    measured = {"metrics": asdict(benchmark.metrics)}
    check_settings(out / "scores" / "settings.json", measured)
    if arguments.compare is not None:
        check_comparable(arguments.compare, settings, measured)

    every = all_series(setup, seeds)
    asked = arguments.conditions or [MAIN.name]
    wanted = [series for series in every if series.name in asked]
    own = arguments.share.of(videos)
    generate_missing(arguments.comfyui, files, wanted, out / "clips", own, arguments.device)
    score_missing(out, wanted, own, judge, benchmark.fps)
    scores = collect(out, every, videos)
    absent = [series for series in wanted if series.setup.seed not in scores.get(series.name, {})]
    for series in absent:
        print(f"{series.folder}: not all {len(videos)} videos are there yet; other processes make them.")
    if not scores:
        return
    about = {"benchmark": benchmark.name, "videos": len(videos), "seeds": seeds, **measured, **settings}
    others = {} if arguments.compare is None else collect(arguments.compare, every, videos)
    if arguments.compare is not None and not others:
        raise ValueError(
            f"{arguments.compare} lacks scores of these {len(videos)} videos; run its benchmark to the end."
        )
    print(write_results(out, scores, videos, about, others))
    write_pictures(out, every, scores, videos, benchmark)
    if arguments.vbench:
        write_vbench(out, every, scores, videos, benchmark)


def all_series(setup: Setup, seeds: Sequence[int]) -> list[Series]:
    """Every condition with every seed."""
    return [Series(condition, replace(setup, seed=seed)) for condition in CONDITIONS for seed in seeds]


def check_comparable(other: Path, settings: dict[str, Any], measured: dict[str, Any]) -> None:
    """Raises ValueError unless the folder holds a run of the same videos, measured in the same way."""
    try:
        its_settings = json.loads((other / "settings.json").read_text())
        its_measure = json.loads((other / "scores" / "settings.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{other} is no folder of a benchmark's run ({error}); name the --out of one.") from error
    if its_settings["sha256"].get("videos") != settings["sha256"]["videos"] or its_measure != measured:
        raise ValueError(
            f"{other} holds another benchmark, or was measured with other networks; only runs of the same file compare."
        )


# --- scores on disk ---------------------------------------------------------------------------------------------------


def score_file(out: Path, series: Series, video: Video) -> Path:
    return out / "scores" / series.folder / f"{video.number:04d}.json"


def score_missing(out: Path, wanted: Sequence[Series], videos: Sequence[Video], judge: Judge, fps: float) -> None:
    """Score the clips of `videos` that have none yet."""
    for series in wanted:
        absent = [video for video in videos if not score_file(out, series, video).exists()]
        for done, video in enumerate(absent, 1):
            frames = np.load(clip_file(out / "clips" / series.folder, video))["frames"]
            save_score(score_file(out, series, video), judge.score(video, frames, fps))
            if done % 8 == 0 or done == len(absent):
                print(f"{series.folder}: {done} of {len(absent)} videos scored", flush=True)


def save_score(path: Path, score: Score) -> None:
    """As JSON, whole or not at all; NaN, which JSON has not, is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write_text(json.dumps(plain(score))))


def load_score(path: Path) -> Score:
    score = json.loads(path.read_text())
    score["values"] = {name: math.nan if value is None else value for name, value in score["values"].items()}
    return score


def collect(out: Path, every: Sequence[Series], videos: Sequence[Video]) -> Scores:
    """The scores of every series that has those of all videos."""
    found: dict[str, dict[int, list[Score]]] = {}
    for series in every:
        files = [score_file(out, series, video) for video in videos]
        if all(file.exists() for file in files):
            found.setdefault(series.name, {})[series.setup.seed] = [load_score(file) for file in files]
    return found


# --- pictures and videos ----------------------------------------------------------------------------------------------


def write_pictures(
    out: Path, every: Sequence[Series], scores: Scores, videos: Sequence[Video], benchmark: Benchmark
) -> None:
    """plot-CONDITION.png, and side-by-side/NUMBER.mp4 of the first videos: all conditions, each with its first seed."""
    first: dict[str, Series] = {}
    for series in every:
        if series.setup.seed in scores.get(series.name, {}):
            first.setdefault(series.name, series)
    for name, series in first.items():
        write_plot(out / f"plot-{series.folder.parent}.png", name, scores[name])
    (out / "side-by-side").mkdir(exist_ok=True)
    for index, video in enumerate(videos[:SIDE_BY_SIDE]):
        results = [
            (load(out / "clips" / series.folder, [video])[0], scores[name][series.setup.seed][index])
            for name, series in first.items()
        ]
        write_mp4(out / "side-by-side" / f"{video.number:04d}.mp4", side_by_side(video, results), benchmark.fps)


def write_vbench(
    out: Path, every: Sequence[Series], scores: Scores, videos: Sequence[Video], benchmark: Benchmark
) -> None:
    """vbench/CONDITION/PROMPT-INDEX.mp4: all videos of a condition, seed after seed, with nothing drawn on them."""
    for name in scores:
        own = [series for series in every if series.name == name and series.setup.seed in scores[name]]
        folder = out / "vbench" / own[0].folder.parent
        folder.mkdir(parents=True, exist_ok=True)
        clips = [clip_file(out / "clips" / series.folder, video) for series in own for video in videos]
        for file, clip in zip(vbench_names([video.caption for video in videos] * len(own)), clips, strict=True):
            write_mp4(folder / file, np.load(clip)["frames"], benchmark.fps)

"""`python -m dv2_core evaluate`: the miniature's table of all conditions, or a benchmark, through the pack's nodes.

Every clip is one prompt in a real ComfyUI and is kept in the output folder, so an interrupted evaluation goes on where
it was, several processes may share the work, and another metric does not ask for another generation. Benchmarks go on
in `benchmark_run`.
"""

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .background import BackgroundClassifier
from .clips import Series, Share, all_series, load, missing, render, write_whole
from .detector import DEFAULT_FILE, Detector
from .engine import PACK, Comfy
from .pairs import Pair, digest_of, draw_pairs, gallery_size
from .probes import Agreement, probe, probes_of
from .prompts import CONDITIONS, MAIN, Case, Setup
from .report import REAL, write
from .scores import Scores, score, shuffled
from .sheet import random_sheet, sheet
from .subjects import load_subjects

#: Setup's field -> ComfyUI's folder of such files.
MODEL_FOLDERS = {"unet": "diffusion_models", "clip": "text_encoders", "vae": "vae", "adapter": "dreamvideo2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [condition.name for condition in CONDITIONS]
    subjects = parser.add_mutually_exclusive_group(required=True)
    subjects.add_argument("--atlas", dest="subjects", metavar="FILE", help="a sprite atlas (.safetensors)")
    subjects.add_argument(
        "--subjects",
        metavar="FOLDER",
        help='folder of cut-out pictures (PNG or WebP with transparency) instead of an atlas, or the word "drawn": '
        "the twelve subjects that this package draws",
    )
    subjects.add_argument(
        "--benchmark",
        metavar="NAME|FILE.toml",
        help="subjects, box sequences, prompts and metrics of a TOML file, or an included one (mini, paper)",
    )
    parser.add_argument("--comfyui", type=Path, required=True, help="folder of an unpacked ComfyUI")
    parser.add_argument("--out", type=Path, required=True, help="folder for clips, tables and contact sheets")
    parser.add_argument(
        "--pairs",
        type=int,
        help="held-out pairs: a multiple of 48, or of the number of subjects where there are fewer (default: 96); of a "
        "benchmark, its first so many videos (default: what it says)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help=f'sampling seeds: "{MAIN.name}" is generated with all of them, the rest with the first (default: 0); of a '
        "benchmark, all conditions with all of them (default: what it says)",
    )
    parser.add_argument(
        "--share",
        type=Share.parse,
        default=Share(),
        metavar="K/N",
        help="generate only the pairs i with i %% N = K; other processes with the same --out make the others",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=PACK / "models",
        help="folder that holds the dv2-mini-*.safetensors files, at any depth; what it lacks is taken from the pack",
    )
    parser.add_argument(
        "--detector", type=Path, help="detector weights (default: the shipped ones); a benchmark's file names its own"
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        choices=names,
        help=f'which to generate (default: all; of a benchmark "{MAIN.name}"); the tables hold every condition whose '
        "clips are all there",
    )
    parser.add_argument("--steps", type=int, default=0, help="sampling steps (default: the adapter's own)")
    parser.add_argument("--cfg", type=float, default=0.0, help="guidance (default: the adapter's own)")
    parser.add_argument(
        "--lambda-m", type=float, default=-1.0, help="lambda_M at inference (default: the adapter's own)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="where ComfyUI and networks compute (default: cpu)"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="DIR", help="of a benchmark: also compare with the run in that --out, in pairs"
    )
    parser.add_argument(
        "--vbench", action="store_true", help="of a benchmark: also write vbench/PROMPT-INDEX.mp4, as VBench reads it"
    )


def main(arguments: argparse.Namespace) -> None:
    if arguments.device == "gpu" and not torch.cuda.is_available():
        raise ValueError("--device gpu needs a CUDA device that torch can use, and there is none; leave it out.")
    if arguments.benchmark is not None:
        from .benchmark_run import run_benchmark

        run_benchmark(arguments)
        return
    if arguments.compare is not None or arguments.vbench:
        raise ValueError("--compare and --vbench are for benchmarks; add --benchmark, or leave them out.")
    seeds = chosen_seeds(arguments.seeds or [0])
    setup = Setup(steps=arguments.steps, cfg=arguments.cfg, lambda_m=arguments.lambda_m)
    atlas = load_subjects(arguments.subjects)
    pairs = draw_pairs(atlas, 96 if arguments.pairs is None else arguments.pairs)
    detector_file = arguments.detector or DEFAULT_FILE
    files, settings = prepare(arguments.out, arguments.weights, setup, {"subjects": digest_of(atlas)})

    every, clips = all_series(setup, seeds), arguments.out / "clips"
    asked = arguments.conditions or [condition.name for condition in CONDITIONS]
    wanted = [s for s in every if s.condition is None or s.condition.name in asked]
    generate_missing(arguments.comfyui, files, wanted, clips, arguments.share.of(pairs), arguments.device)
    complete: list[Series] = []
    for series in every:
        absent = len(missing(clips / series.folder, pairs))
        if not absent:
            complete.append(series)
        elif series in wanted:
            print(
                f"{series.folder}: {absent} of {len(pairs)} clips are not there yet. When every process has made its "
                "share, run the command again without --share to score them."
            )
    detector = Detector.load(detector_file)
    about = {
        "pairs": len(pairs),
        "gallery": min(gallery_size(atlas), len(pairs)),
        "seeds": seeds,
        **settings,
        "detector": digest(detector_file),
        "detector alone": detector.metadata.get("held_out"),
    }
    rows, probes = measure(pairs, complete, len(seeds), clips, detector, arguments.out)
    print(write(arguments.out, rows, probes, seeds, about))


def chosen_seeds(seeds: Sequence[int]) -> list[int]:
    """Each sampling seed once. Raises ValueError for a negative one."""
    if min(seeds) < 0:
        raise ValueError(f"The sampling seeds are {list(seeds)}; they must be 0 or larger.")
    return list(dict.fromkeys(seeds))


def prepare(out: Path, weights: Path, setup: Setup, inputs: dict[str, str]) -> tuple[dict[str, Path], dict[str, Any]]:
    """The weights by their fields of `setup`, and the settings, which `out` then stands for.

    inputs: SHA-256 of what the clips are made of. Raises ValueError for missing weights and for a folder of others."""
    files = {field: find_weights(weights, getattr(setup, field)) for field in MODEL_FOLDERS}
    settings = {key: value for key, value in asdict(setup).items() if key != "seed"}
    settings["sha256"] = {**inputs, **{name: digest(path) for name, path in files.items()}}
    check_settings(out / "settings.json", settings)
    return files, settings


def generate_missing(
    comfyui: Path,
    files: dict[str, Path],
    wanted: Sequence[Series],
    clips: Path,
    cases: Sequence[Case],
    device: str,
) -> None:
    """Make the clips that are not there; ComfyUI is started only if there are any."""
    work = [series for series in wanted if missing(clips / series.folder, cases)]
    if not work:
        return
    with tempfile.TemporaryDirectory(prefix="dv2-evaluate-") as base_dir:
        # Linked before ComfyUI starts, since it lists its folders once; its own models/ comes before the pack's.
        for field, path in files.items():
            folder = Path(base_dir) / "models" / MODEL_FOLDERS[field]
            folder.mkdir(parents=True)
            os.symlink(path, folder / path.name)
        comfy = Comfy(comfyui, Path(base_dir), device)
        for series in work:
            render(comfy, clips / series.folder, cases, series.prompt)


def measure(
    pairs: list[Pair], complete: Sequence[Series], seeds: int, clips: Path, detector: Detector, out: Path
) -> tuple[dict[str, list[Scores]], dict[str, dict[str, Agreement]]]:
    """Score every row whose clips are complete, write its contact sheets, and ask the text probes.

    seeds: how many the main condition has. Returns scores and probes by the rows' names."""
    backgrounds = BackgroundClassifier()
    real = [pair.real for pair in pairs]
    rows = {REAL: [score(real, pairs, detector)]}
    probes = {REAL: probe(probes_of(None), real, rows[REAL][0].detected, pairs, detector, backgrounds)}
    by_name: dict[str, list[Series]] = {}
    for series in complete:
        by_name.setdefault(series.name, []).append(series)
    for name, members in by_name.items():
        condition = members[0].condition
        if condition == MAIN and len(members) < seeds:
            continue
        made = [load(clips / series.folder, pairs) for series in members]
        rows[name] = [score(frames, pairs, detector) for frames in made]
        first = rows[name][0]
        probes[name] = probe(probes_of(condition), made[0], first.detected, pairs, detector, backgrounds)
        if condition is None:
            rows[f"{REAL}, shuffled boxes"] = [score(real, pairs, detector, shuffled(pairs))]
        else:
            sheet(pairs, made[0], first.mIoU).save(out / f"{condition.folder}.png")
            random_sheet(pairs, made[0], first.mIoU).save(out / f"{condition.folder}-random.png")
    return rows, probes


def find_weights(folder: Path, name: str) -> Path:
    """The one file `name` in `folder` or below, else the pack's own. Raises ValueError if there is none, or several."""
    for root in (folder, PACK / "models"):
        found = sorted(root.rglob(name))
        if len(found) > 1:
            raise ValueError(f"{root} holds {name} {len(found)} times; name a folder that holds it once.")
        if found:
            return found[0].resolve()
    raise ValueError(f"Neither {folder} nor the pack's models folder holds {name}; train it, or name its folder.")


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Remember the settings of a folder's clips or scores; refuse to mix those of two settings in one folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(
            f"{path.parent} holds results of other weights or settings (see {path.name}); "
            "choose another --out, or delete it."
        )
    write_whole(path, lambda file: file.write_text(json.dumps(settings, indent=1) + "\n"))

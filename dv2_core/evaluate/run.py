"""`python -m dv2_core evaluate`: the miniature's table of all conditions, generated through the pack's nodes.

Every clip is one prompt in a real ComfyUI and is kept in the output folder, so an interrupted evaluation goes on where
it was, and another metric does not ask for another generation.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..world.atlas import Atlas
from .detector import DEFAULT_FILE, Detector
from .engine import PACK, Comfy, Prompt
from .metrics import GALLERY
from .pairs import Pair, draw_pairs
from .prompts import CONDITIONS, SHOWN, Setup, generate, reconstruct, write_inputs
from .report import write
from .scores import score, shuffled
from .sheet import sheet

#: Setup's field -> ComfyUI's folder of such files.
MODEL_FOLDERS = {"unet": "diffusion_models", "clip": "text_encoders", "vae": "vae", "adapter": "dreamvideo2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [condition.name for condition in CONDITIONS]
    parser.add_argument("--atlas", type=Path, required=True, help="the sprite atlas (.safetensors)")
    parser.add_argument("--comfyui", type=Path, required=True, help="folder of an unpacked ComfyUI")
    parser.add_argument("--out", type=Path, required=True, help="folder for clips, table and contact sheet")
    parser.add_argument("--pairs", type=int, default=96, help="held-out pairs, a multiple of 48 (default: %(default)s)")
    parser.add_argument(
        "--weights",
        type=Path,
        default=PACK / "models",
        help="folder that holds the dv2-mini-*.safetensors files, at any depth; what it lacks is taken from the pack",
    )
    parser.add_argument(
        "--detector", type=Path, default=DEFAULT_FILE, help="detector weights (default: the shipped ones)"
    )
    parser.add_argument(
        "--conditions", nargs="+", choices=names, default=names, help="which to generate (default: all)"
    )
    parser.add_argument("--steps", type=int, default=0, help="sampling steps (default: the adapter's own)")
    parser.add_argument("--cfg", type=float, default=0.0, help="guidance (default: the adapter's own)")
    parser.add_argument(
        "--lambda-m", type=float, default=-1.0, help="lambda_M at inference (default: the adapter's own)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampling noise")


def main(arguments: argparse.Namespace) -> None:
    setup = Setup(steps=arguments.steps, cfg=arguments.cfg, lambda_m=arguments.lambda_m, seed=arguments.seed)
    pairs = draw_pairs(Atlas.load(arguments.atlas), arguments.pairs)
    detector = Detector.load(arguments.detector)
    files = {field: find_weights(arguments.weights, getattr(setup, field)) for field in MODEL_FOLDERS}
    about = {
        **asdict(setup),
        "sha256": {name: digest(path) for name, path in {"atlas": arguments.atlas, **files}.items()},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    check_settings(arguments.out / "settings.json", about)
    with tempfile.TemporaryDirectory(prefix="dv2-evaluate-") as base_dir:
        # Linked before ComfyUI starts, since it lists its folders once; its own models/ comes before the pack's.
        for field, path in files.items():
            folder = Path(base_dir) / "models" / MODEL_FOLDERS[field]
            folder.mkdir(parents=True)
            os.symlink(path, folder / path.name)
        comfy = Comfy(arguments.comfyui, Path(base_dir))
        for pair in pairs:
            write_inputs(pair, comfy.input_dir)

        def rendered(folder: str, make: Callable[[Pair], Prompt]) -> list[np.ndarray]:
            return render(comfy, pairs, arguments.out / "clips" / folder, make)

        rows = {
            "real clips": score([pair.real for pair in pairs], pairs, detector),
            "real clips through the VAE": score(rendered("vae", partial(reconstruct, setup=setup)), pairs, detector),
            "real clips, shuffled boxes": score([pair.real for pair in pairs], pairs, detector, shuffled(pairs)),
        }
        for condition in CONDITIONS:
            if condition.name in arguments.conditions:
                clips = rendered(condition.folder, partial(generate, condition=condition, setup=setup))
                rows[condition.name] = score(clips, pairs, detector)
                sheet(pairs, clips, rows[condition.name].mIoU).save(arguments.out / f"{condition.folder}.png")
    detector_file = {"detector": digest(arguments.detector), "detector alone": detector.metadata.get("held_out")}
    print(
        write(arguments.out, rows, {"pairs": len(pairs), "gallery": min(GALLERY, len(pairs)), **about, **detector_file})
    )


def render(comfy: Comfy, pairs: list[Pair], folder: Path, make: Callable[[Pair], Prompt]) -> list[np.ndarray]:
    """The clips of all pairs, uint8 [F, H, W, 3] each; those already in `folder` are read and not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    clips, started, made = [], time.time(), 0
    for pair in pairs:
        path = folder / f"{pair.number:04d}.npz"
        if not path.exists():
            frames = comfy.run(make(pair), SHOWN)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                np.savez_compressed(file, frames=frames)
            os.replace(temporary, path)
            made += 1
            if made % 8 == 0:
                each = (time.time() - started) / made
                print(f"{folder.name}: clip {pair.number + 1} of {len(pairs)}, {each:.1f} s each", flush=True)
        clips.append(np.load(path)["frames"])
    return clips


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
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Remember the settings of a folder's clips; refuse to mix clips of two settings in one folder."""
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(
            f"{path.parent} holds clips of other weights or settings (see {path.name}); "
            "choose another --out, or delete it."
        )
    path.write_text(json.dumps(settings, indent=1) + "\n")

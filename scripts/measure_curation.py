"""How near the curated boxes are to the true ones, on whole clips of the mini-world at 256 pixels.

    python scripts/measure_curation.py --model .cache/tests/isnet.onnx --atlas .cache/tests/atlas.safetensors --out DIR

The clips are the first ones of the test split, as the world makes them. They are curated twice: with the model in the
places of detector, segmenter and tracker, and with their true masks beside them. Prints the mean IoU of all boxes, with
those of rejected clips as 0 and without them, and per background. Started again, it goes on.

Both files above are made by the set-up of scripts/test.py: ISNet, a genuinely trained network, and the sprites.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from dv2_core.curate.config import CurateConfig
from dv2_core.curate.geometry import iou
from dv2_core.curate.run import Counts, curate
from dv2_core.curate.video import encode
from dv2_core.manifest import parse_row
from dv2_core.world.atlas import Atlas
from dv2_core.world.clips import World

SIZE, FPS = 256, 8


@dataclass(frozen=True)
class Curated:
    """One clip after curation. found: IoU of every frame's box with the true one, all 0 where it was rejected."""

    background: str
    accepted: bool
    found: tuple[float, ...]


def mean_iou(clips: Iterable[Curated]) -> float:
    return float(np.mean([value for clip in clips for value in clip.found]))


def write_clips(world: World, count: int, folder: Path, masks: bool) -> dict[str, tuple[str, list[list[float]]]]:
    """Videos of the world's first clips, with captions and words, with true masks if asked for.

    Returns {name: (background, true boxes in pixels)}.
    """
    truth = {}
    for n in range(count):
        clip, name = world.clip(n), f"{n:04d}"
        truth[name] = clip.background, (clip.boxes * SIZE).tolist()
        pictures, video = folder / "frames" / name, folder / "videos" / f"{name}.mp4"
        if video.is_file():
            continue
        pictures.mkdir(parents=True, exist_ok=True)
        video.parent.mkdir(exist_ok=True)
        for t, frame in enumerate(clip.frames):
            Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy()).save(pictures / f"{t:05d}.png")
        video.with_suffix(".txt").write_text(clip.caption)
        video.with_suffix(".word.txt").write_text(clip.concept)
        if masks:
            video.with_suffix(".masks").mkdir(exist_ok=True)
            for t, alpha in enumerate(clip.alpha.numpy()):
                Image.fromarray(alpha.astype(np.uint8) * 255).save(video.with_suffix(".masks") / f"{t:05d}.png")
        with video.open("wb") as file:
            encode(sorted(pictures.iterdir()), FPS, file)
    return truth


def measure(world: World, count: int, folder: Path, masks: bool, model: str) -> tuple[Counts, list[Curated]]:
    """Curate the world's first clips with all filters on the boxes open. A frame without a box has the IoU 0."""
    truth = write_clips(world, count, folder, masks)
    everything = {"width": [0.0, 1.0], "height": [0.0, 1.0], "area": [0.0, 1.0]}
    config = CurateConfig.from_dict({
        "source": str(folder / "videos"), "skip": ["split", "blur", "cut", "text"], "size": everything,
        "motion": {"overlap": 1.0}, "models": {"detector": model, "segmenter": model}, "detect": {"threshold": 0.3},
        "visible": {"least": 0.0}, "probe": {"uneven": 1.0},
    })  # fmt: skip
    counts, _ = curate(config, folder / "out")
    lines = enumerate((folder / "out" / "clips.jsonl").read_text().splitlines())
    rows = [row for number, line in lines if (row := parse_row(line, f"clips.jsonl:{number}")) is not None]
    boxes = {Path(row.video).stem: row.boxes for row in rows}
    clips = []
    for name, (background, true) in truth.items():
        got = boxes.get(name, [None] * len(true))
        found = tuple(iou(box, t) if box else 0.0 for box, t in zip(got, true, strict=True))
        clips.append(Curated(background, name in boxes, found))
    return counts, clips


def report(title: str, counts: Counts, clips: list[Curated]) -> None:
    print(f"{title}: {counts.accepted} of {counts.clips} clips accepted, rejected: {counts.rejected}")
    kinds = sorted({clip.background for clip in clips})
    parts = ", ".join(f"{kind} {mean_iou(c for c in clips if c.background == kind):.3f}" for kind in kinds)
    accepted = mean_iou(clip for clip in clips if clip.accepted)
    print(f"  mean IoU {mean_iou(clips):.4f} of {len(clips)} clips ({parts}); {accepted:.4f} of the accepted ones")
    for number, clip in enumerate(clips):
        values = " ".join(f"{value:.2f}" for value in clip.found)
        print(f"  {number:3} {clip.background:10} {'accepted' if clip.accepted else 'rejected'} {values}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an .onnx file of a salient-object network")
    parser.add_argument("--atlas", type=Path, required=True, help="sprites of the mini-world")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world, model = World(Atlas.load(arguments.atlas), "test", size=SIZE), str(arguments.model)
    report("true masks", *measure(world, arguments.clips, arguments.out / "true", True, ""))
    report(arguments.model.name, *measure(world, arguments.clips, arguments.out / "model", False, model))


if __name__ == "__main__":
    main()

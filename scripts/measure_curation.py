"""How near the curated boxes are to the true ones, on clips of the mini-world at 256 pixels.

    python scripts/measure_curation.py --model .cache/tests/isnet.onnx --out DIR [--clips 12] [--frames 3] [--atlas A]

The clips are curated twice: with the model in the places of detector, segmenter and tracker, and with their true masks
beside them. Prints the mean IoU of all boxes of the accepted clips, per background. Started again, it goes on.

The file above is a genuinely trained network, ISNet, which the set-up of scripts/test.py takes out of a package.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from dv2_core.curate.config import CurateConfig
from dv2_core.curate.geometry import iou
from dv2_core.curate.run import Counts, curate
from dv2_core.curate.video import encode
from dv2_core.drawn import drawn_subjects
from dv2_core.manifest import parse_row
from dv2_core.world.atlas import Atlas, Sprite, fit_sprite
from dv2_core.world.clips import World

SIZE, FPS = 256, 8
#: Frames that a subject's way takes; the first few are looked at, so that it moves from one to the next as in a video.
WAY = 16


def drawn_atlas() -> Atlas:
    """The twelve subjects that this package draws, all held out."""
    pictures = drawn_subjects()
    sprites = [Sprite(name, name, "drawn", "Apache-2.0", "test") for name in pictures]
    return Atlas(np.stack([fit_sprite(np.asarray(picture)) for picture in pictures.values()]), sprites)


def write_clips(
    world: World, count: int, frames: int, folder: Path, masks: bool
) -> dict[str, tuple[str, list[list[float]]]]:
    """Videos of the clips' first frames, with captions and words, with true masks if asked for.

    Returns {name: (background, true boxes in pixels)}.
    """
    truth = {}
    for n in range(count):
        clip, name = world.clip(n), f"{n:04d}"
        truth[name] = clip.background, (clip.boxes[:frames] * SIZE).tolist()
        pictures, video = folder / "frames" / name, folder / "videos" / f"{name}.mp4"
        if video.is_file():
            continue
        pictures.mkdir(parents=True, exist_ok=True)
        video.parent.mkdir(exist_ok=True)
        for t, frame in enumerate(clip.frames[:frames]):
            Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy()).save(pictures / f"{t:05d}.png")
        video.with_suffix(".txt").write_text(clip.caption)
        video.with_suffix(".word.txt").write_text(clip.concept)
        if masks:
            video.with_suffix(".masks").mkdir(exist_ok=True)
            for t, alpha in enumerate(clip.alpha[:frames].numpy()):
                Image.fromarray(alpha.astype(np.uint8) * 255).save(video.with_suffix(".masks") / f"{t:05d}.png")
        with video.open("wb") as file:
            encode(sorted(pictures.iterdir()), FPS, file)
    return truth


def measure(
    world: World, count: int, frames: int, folder: Path, masks: bool, model: str
) -> tuple[Counts, dict[str, list[float]]]:
    """Curate the world's first clips with all filters on the boxes open: (counts, {background: IoU of every box}).

    A frame of an accepted clip in which the subject is missed has the IoU 0.
    """
    truth = write_clips(world, count, frames, folder, masks)
    everything = {"width": [0.0, 1.0], "height": [0.0, 1.0], "area": [0.0, 1.0]}
    config = CurateConfig.from_dict({
        "source": str(folder / "videos"), "skip": ["split", "blur", "cut", "text"], "size": everything,
        "motion": {"overlap": 1.0}, "models": {"detector": model, "segmenter": model}, "detect": {"threshold": 0.5},
        "visible": {"least": 0.0}, "probe": {"uneven": 1.0},
    })  # fmt: skip
    counts, _ = curate(config, folder / "out")
    by_background: dict[str, list[float]] = {}
    for number, line in enumerate((folder / "out" / "clips.jsonl").read_text().splitlines()):
        row = parse_row(line, f"clips.jsonl:{number}")
        if row is not None:
            background, boxes = truth[Path(row.video).stem]
            found = [iou(got, true) if got else 0.0 for got, true in zip(row.boxes, boxes, strict=True)]
            by_background.setdefault(background, []).extend(found)
    return counts, by_background


def report(title: str, counts: Counts, by_background: dict[str, list[float]]) -> None:
    values = [value for found in by_background.values() for value in found]
    parts = ", ".join(f"{name} {np.mean(found):.3f}" for name, found in sorted(by_background.items()))
    print(f"{title}: {counts.accepted} of {counts.clips} clips accepted, rejected: {counts.rejected}")
    print(f"  {len(values)} boxes, mean IoU {np.mean(values):.4f}, least {min(values):.3f} ({parts})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an .onnx file of a salient-object network")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--atlas", type=Path, help="sprites of the mini-world (default: the subjects drawn here)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    atlas = Atlas.load(arguments.atlas) if arguments.atlas else drawn_atlas()
    world = World(atlas, "test", size=SIZE, num_frames=WAY)
    sizes, model = (world, arguments.clips, arguments.frames), str(arguments.model)
    report("true masks", *measure(*sizes, arguments.out / "true", True, ""))
    report(arguments.model.name, *measure(*sizes, arguments.out / "model", False, model))


if __name__ == "__main__":
    main()

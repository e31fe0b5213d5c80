"""A small segmenter that finds the subject of a mini-world frame without knowing where it was asked to be.

It plays the part of Grounding DINO in the paper's evaluation (section 6 there): the boxes it finds are compared with
the requested ones. It sees single frames, is trained on exact alpha of *training* concepts only, and is no part of the
method.

`python -m dv2_core.evaluate.detector --atlas FILE --out FILE` trains it (about ten minutes on one CPU thread).
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from ..world.atlas import Atlas
from ..world.clips import World

SIZE = 64  # frame side, in pixels, that the detector was trained on; other frames are resized to it
MIN_SIDE = 6  # a narrower or lower region, in pixels at SIZE, is no detection
THRESHOLD = 0.5
DEFAULT_FILE = Path(__file__).resolve().parents[2] / "models" / "dv2-mini-detector.safetensors"


# --- network ----------------------------------------------------------------------------------------------------------


def stage(channels_in: int, channels_out: int, dilations: tuple[int, ...] = (1, 1)) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dilation in dilations:
        layers += [
            nn.Conv2d(channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        ]
        channels_in = channels_out
    return nn.Sequential(*layers)


class Segmenter(nn.Module):
    """A U-Net on 2x2 space-to-depth pixels: frames [N, 3, H, W] in 0..1 -> logits [N, H, W]; H, W multiples of 8."""

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 96)):
        super().__init__()
        high, middle, low = widths
        self.down1 = stage(12, high)
        self.down2 = stage(high, middle)
        # Dilated, so that the lowest level sees the whole frame: a checkered background is told by its repetition.
        self.bottom = stage(middle, low, (1, 2, 4))
        self.up2 = stage(low + middle, middle)
        self.up1 = stage(middle + high, high)
        self.head = nn.Conv2d(high, 4, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        one = self.down1(F.pixel_unshuffle(frames * 2 - 1, 2))  # [N, 32, H/2, W/2]
        two = self.down2(F.max_pool2d(one, 2))  # [N, 64, H/4, W/4]
        three = self.bottom(F.max_pool2d(two, 2))  # [N, 96, H/8, W/8]
        two = self.up2(torch.cat([F.interpolate(three, scale_factor=2.0, mode="bilinear"), two], 1))
        one = self.up1(torch.cat([F.interpolate(two, scale_factor=2.0, mode="bilinear"), one], 1))
        return F.pixel_shuffle(self.head(one), 2)[:, 0]


# --- from probabilities to boxes --------------------------------------------------------------------------------------


def connected_components(masks: torch.Tensor) -> torch.Tensor:
    """Number the 8-connected regions: bool [N, H, W] -> int64 [N, H, W], 0 outside; equal numbers = one region.

    Every pixel starts with a number of its own and takes the largest among its neighbours until nothing changes."""
    count, height, width = masks.shape
    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)
    region = masks[:, None].float()
    labels = numbers * region  # [N, 1, H, W]
    while True:
        spread = F.max_pool2d(labels, 3, 1, 1) * region
        if torch.equal(spread, labels):
            return labels[:, 0].long()
        labels = spread


def largest_region(mask: torch.Tensor) -> torch.Tensor:
    """The pixels of the largest region of one mask, bool [H, W] -> bool [H, W].

    Regions are joined over gaps of two pixels (3x3 dilation): a thin neck that blurred away does not cut the subject.
    Their size is counted without the dilation."""
    near = F.max_pool2d(mask[None, None].float(), 3, 1, 1)[0].bool()  # [1, H, W]
    labels = connected_components(near)[0] * mask
    sizes = labels.flatten().bincount()
    sizes[0] = 0
    return (labels == sizes.argmax()) & mask


def box_of(mask: torch.Tensor, min_side: float) -> np.ndarray:
    """The tight box of the largest region of bool [H, W]: float64 [4] x0 y0 x1 y1 in 0..1, NaN where there is none."""
    height, width = mask.shape
    region = largest_region(mask)
    columns, rows = region.any(0).nonzero().flatten().tolist(), region.any(1).nonzero().flatten().tolist()
    if not columns or columns[-1] + 1 - columns[0] < min_side or rows[-1] + 1 - rows[0] < min_side:
        return np.full(4, np.nan)
    return np.array([columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height])


class Detector:
    """A trained segmenter as a box detector."""

    def __init__(self, network: Segmenter, metadata: dict[str, str]):
        self.network = network.eval()
        self.metadata = metadata

    @classmethod
    def load(cls, path: str | Path = DEFAULT_FILE) -> "Detector":
        """Raises ValueError for a file that is no detector."""
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "dv2-detector-1":
                raise ValueError(f"{path} is no detector; train one with python -m dv2_core.evaluate.detector.")
            network = Segmenter()
            network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        return cls(network, metadata)

    def save(self, path: str | Path) -> None:
        """Half precision; the counters of the batch norms, which only training would use, are zeroed."""
        state = self.network.state_dict()
        tensors = {name: t.half().contiguous() if t.is_floating_point() else t * 0 for name, t in state.items()}
        save_file(tensors, str(path), metadata={**self.metadata, "format": "dv2-detector-1"})

    @torch.no_grad()
    def probabilities(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [N, 3, H, W] in 0..1 -> probability of the subject at SIZE x SIZE pixels, [N, SIZE, SIZE]."""
        if frames.shape[-2:] != (SIZE, SIZE):
            frames = F.interpolate(frames, (SIZE, SIZE), mode="bilinear", antialias=True)
        return self.network(frames.float().clamp(0, 1)).sigmoid()

    def boxes(self, frames: torch.Tensor) -> np.ndarray:
        """Frames [N, 3, H, W] in 0..1 -> boxes float64 [N, 4] x0 y0 x1 y1 in 0..1; a row of NaN is "nothing found"."""
        masks = self.probabilities(frames) > THRESHOLD
        return np.stack([box_of(mask, MIN_SIDE) for mask in masks])

    def regions(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [N, 3, H, W] in 0..1 -> the pixels of the largest region, however small: bool [N, SIZE, SIZE]."""
        return torch.stack([largest_region(mask) for mask in self.probabilities(frames) > THRESHOLD])


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DetectorTraining:
    """Everything that decides the weights (one CPU thread, one torch version)."""

    steps: int = 2000
    clips: int = 12  # per step
    frames_per_clip: int = 3
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    seed: int = 7


def degrade(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What a small video model does to a picture: [N, 3, H, W] in 0..1 -> the same, each frame by its own chance.

    Contrast and colour shift, Gaussian blur, lost resolution, white noise, and errors on the 8x8 patch grid."""
    count, _, height, width = frames.shape

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def some(share: float) -> torch.Tensor:
        return (uniform(0, 1, count, 1, 1, 1) < share).float()

    gain, shift = uniform(0.5, 1.3, count, 1, 1, 1) + 0.1 * normal(count, 3, 1, 1), 0.1 * normal(count, 3, 1, 1)
    frames = frames + some(0.5) * ((frames - 0.5) * gain + 0.5 + shift - frames)

    offsets = torch.arange(-4, 5).float()
    kernel = torch.exp(-(offsets**2) / (2 * uniform(0.4, 1.8, 1) ** 2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, 9)
    padded = F.pad(frames, (4, 4, 4, 4), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    frames = torch.lerp(frames, blurred, some(0.4))

    side = int(uniform(16, 40, 1))
    small = F.interpolate(frames, (side, side), mode="bilinear", antialias=True)
    frames = torch.lerp(frames, F.interpolate(small, (height, width), mode="bilinear"), some(0.25))

    frames = frames + some(0.5) * uniform(0, 0.12, count, 1, 1, 1) * normal(count, 3, height, width)
    ramp = torch.linspace(-1, 1, 8).repeat(height // 8)  # position inside a patch
    levels = normal(3, count, 3, height // 8, width // 8).repeat_interleave(8, 3).repeat_interleave(8, 4)
    patches = levels[0] + levels[1] * ramp[:, None] + levels[2] * ramp
    frames = frames + some(0.5) * uniform(0, 0.08, count, 1, 1, 1) * patches
    return frames.clamp(0, 1)


def loss_of(logits: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus (1 - Dice), the latter per frame so that small subjects count as much as large ones."""
    probability = logits.sigmoid()
    overlap = (probability * alpha).sum((1, 2))
    dice = (2 * overlap + 1) / (probability.sum((1, 2)) + alpha.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, alpha) + (1 - dice).mean()


def train(atlas: Atlas, settings: DetectorTraining) -> Detector:
    """Train on the training concepts of `atlas`; prints the loss now and then."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    network = Segmenter()
    # With bf16 twice as fast on a CPU.
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    world = World(
        atlas,
        "train",
        SIZE,
        settings.frames_per_clip,
        seed=settings.seed,
        length=settings.steps * settings.clips,
    )
    started, recent = time.time(), []
    for step, batch in enumerate(DataLoader(world, batch_size=settings.clips)):
        progress = step / settings.steps
        rate = min(1.0, (step + 1) / settings.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        frames, alpha = batch["frames"].flatten(0, 1), batch["alpha"].flatten(0, 1).float()
        frames = degrade(frames, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(frames)
        loss = loss_of(logits.float(), alpha)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1} of {settings.steps}, loss {np.mean(recent):.4f}, {time.time() - started:.0f} s",
                flush=True,
            )
            recent = []
    return Detector(network, {"training": json.dumps(asdict(settings)), "license": "Apache-2.0"})


def measure(detector: Detector, atlas: Atlas, clips: int = 200, seed: int = 11) -> dict[str, float]:
    """The detector on real held-out clips: mean IoU, centroid distance in frame diagonals, share of missed frames."""
    from .metrics import centroid_distance, iou, missed

    world = World(atlas, "test", SIZE, 8, seed=seed)
    drawn = [world.clip(i) for i in range(clips)]
    found = np.stack([detector.boxes(clip.frames) for clip in drawn])  # [clips, 8, 4]
    target = np.stack([clip.boxes.double().numpy() for clip in drawn])
    return {
        "clips": clips,
        "mIoU": float(iou(found, target).mean()),
        "CD": float(centroid_distance(found, target).mean()),
        "misses": float(missed(found).mean()),
    }


def main() -> None:
    defaults = DetectorTraining()
    parser = argparse.ArgumentParser(description="Train the detector of the mini-world's evaluation.")
    parser.add_argument("--atlas", type=Path, required=True, help="the sprite atlas (.safetensors)")
    parser.add_argument("--out", type=Path, required=True, help="the weights to write (.safetensors)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="optimiser steps (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    atlas = Atlas.load(arguments.atlas)
    detector = train(atlas, DetectorTraining(steps=arguments.steps))
    detector.save(arguments.out)
    detector = Detector.load(arguments.out)  # what is measured is what was written
    figures = measure(detector, atlas)
    detector.metadata["held_out"] = json.dumps(figures)
    detector.save(arguments.out)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

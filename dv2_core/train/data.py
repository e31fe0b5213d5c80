"""What the trainer asks of its data, whatever the kind: batches, a validation set, examples to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..boxes import BoxTrack
from ..diffusion.schedule import TRAIN_STEPS
from .data_config import ClipsConfig, DataConfig, Draws, MiniWorldConfig

#: Every validation clip is seen at each of these timesteps: from nearly clean to nearly noise.
LADDER = tuple(range(TRAIN_STEPS // 10, TRAIN_STEPS, TRAIN_STEPS // 5))


@dataclass(frozen=True)
class Batch:
    """B clips of F frames with the random numbers of their training step."""

    latents: Tensor  # [B * F, C, h, w], clean
    masks: Tensor  # [B * F, 1, H, W], 1 inside the box; all 0 in a frame without the subject
    subject: Tensor  # [B, C, h, w], clean
    noise: Tensor  # [B * F, C, h, w]
    timesteps: Tensor  # [B]
    keep_ref: Tensor  # [B] 0 or 1
    keep_motion: Tensor  # [B] 0 or 1
    tokens: Tensor | None = None  # [B, L], where the text encoder may learn
    context: Tensor | None = None  # [B, L, D], embeddings of a frozen text encoder
    index: int = 0  # of the batch among those of all steps and processes

    def to(self, device: torch.device) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)})


@dataclass(frozen=True)
class Sample:
    """A held-out example to generate: its conditions, and what to show beside the result."""

    picture: Tensor  # [3, H, W] in 0..1, the subject on white
    boxes: BoxTrack  # F frames
    caption: str
    subject: Tensor  # [C, h, w], clean
    masks: Tensor  # [F, 1, H, W]
    tokens: Tensor | None = None  # [L], and those of the empty caption; like Batch's
    empty_tokens: Tensor | None = None
    context: Tensor | None = None  # [L, D]
    empty_context: Tensor | None = None


@dataclass(frozen=True)
class DataSize:
    """What a dry run tells about the data. ``clips``: of one epoch; None where clips never repeat."""

    clips: int | None
    held_out: int | None
    num_frames: int
    frame_size: tuple[int, int]  # width, height in pixels
    latent: tuple[int, int, int]  # C, h, w
    text_tokens: int  # L
    context_dim: int | None  # D; None where the text encoder is part of the training
    rejected: int = 0  # rows that the manifest itself rejects

    @property
    def description(self) -> str:
        width, height = self.frame_size
        channels, rows, columns = self.latent
        clips = "endless clips"
        if self.clips is not None:
            clips = f"{self.clips} clips ({self.held_out} more held out, {self.rejected} rejected)"
        return (
            f"{clips} of {self.num_frames} frames, {width}x{height} pixels, latents {channels}x{rows}x{columns}: "
            f"{self.num_frames * rows * columns} latent positions and {self.text_tokens} text tokens a clip"
        )


class Data(Protocol):
    """The trainer's view of its data.

    ``step`` counts micro-batches. A batch is a pure function of (settings, step, process, processes), so a resumed
    training needs no state of generators or workers.
    """

    words: list[str] | None  # vocabulary of ``Batch.tokens``; None where batches hold ``context``
    size: DataSize

    def prepare(self, process: int, processes: int, device: torch.device) -> None:
        """Fill this process's share of the caches. Call it on every process, then wait for all, before the batches."""
        ...

    def batch(self, step: int, process: int = 0, processes: int = 1) -> Batch:
        """The batch of one micro-batch and process."""
        ...

    def batches(self, start: int, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """``batch(start)``, ``batch(start + 1)``, ... without end, prepared ahead by ``workers`` processes."""
        ...

    def validation(self) -> list[Batch]:
        """Held-out clips at fixed noise and at each timestep of LADDER, nothing dropped, whatever the seed."""
        ...

    def samples(self, n: int) -> list[Sample]:
        """The first n held-out examples (fewer where there are fewer), the same on every call and for every seed."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [N, C, h, w] -> frames [N, 3, H, W] in 0..1, on the latents' device; keeps no memory there."""
        ...


def open_data(config: DataConfig, draws: Draws) -> Data:
    """The data that ``config`` describes. Raises ValueError with a sentence for missing or unusable files."""
    if isinstance(config, MiniWorldConfig):
        from .data_mini import MiniWorld

        return MiniWorld(config, draws)
    if isinstance(config, ClipsConfig):
        from .data_clips import RealClips

        return RealClips(config, draws)
    raise TypeError(f"{type(config).__name__} is no kind of data.")


@dataclass(frozen=True)
class StepNumbers:
    """The random numbers of one batch; fields as in Batch."""

    keep_text: list[bool]
    noise: Tensor
    timesteps: Tensor
    keep_ref: Tensor
    keep_motion: Tensor


def step_numbers(draws: Draws, index: int, num_frames: int, latent: tuple[int, int, int]) -> StepNumbers:
    """The numbers of batch ``index`` = step * processes + process, for clips of latent [num_frames, *latent]."""
    generator = torch.Generator().manual_seed(draws.seed * 1_000_000_007 + index)

    def keep(chance_to_drop: float) -> Tensor:
        return (torch.rand(draws.batch, generator=generator) >= chance_to_drop).float()

    return StepNumbers(
        keep_text=keep(draws.drop_text).bool().tolist(),
        noise=torch.randn((draws.batch * num_frames, *latent), generator=generator),
        timesteps=torch.randint(0, TRAIN_STEPS, (draws.batch,), generator=generator),
        keep_ref=keep(draws.drop_ref),
        keep_motion=keep(draws.drop_motion),
    )


def ladder_numbers(seed: int, num_frames: int, latent: tuple[int, int, int]) -> dict[str, Any]:
    """Noise, timesteps and keep flags of one validation clip at every timestep of LADDER, as fields of its Batch."""
    steps = len(LADDER)
    generator = torch.Generator().manual_seed(seed)
    return {
        "noise": torch.randn((steps * num_frames, *latent), generator=generator),
        "timesteps": torch.tensor(LADDER),
        "keep_ref": torch.ones(steps),
        "keep_motion": torch.ones(steps),
    }


class _Steps(Dataset[Batch]):
    """``data.batch`` as a map-style data set of endless length."""

    def __init__(self, data: Data, process: int, processes: int) -> None:
        self.data, self.process, self.processes = data, process, processes

    def __getitem__(self, step: int) -> Batch:
        return self.data.batch(step, self.process, self.processes)


def prefetched(data: Data, start: int, process: int, processes: int, workers: int) -> Iterator[Batch]:
    """``data.batch`` of start, start + 1, ..., made by DataLoader workers, in order."""
    steps = cast(Sampler[int], count(start))  # DataLoader only iterates over it
    return iter(
        DataLoader(_Steps(data, process, processes), None, sampler=steps, num_workers=workers, collate_fn=_same)
    )


def _same(batch: Any) -> Any:
    return batch

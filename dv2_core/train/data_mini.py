"""The mini-world as training data: endless drawn clips, a patch PCA for latents, word tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..boxes import BoxTrack
from ..world.atlas import Atlas
from ..world.clips import Clip, World
from ..world.latent import PATCH, PatchPCA
from ..world.text import WordTokenizer, vocabulary
from .data import LADDER, Batch, DataSize, Sample, ladder_numbers, prefetched, step_numbers
from .data_config import Draws, MiniWorldConfig

#: Held-out clips are those of this seed, whatever the training's.
HELD_OUT_SEED = 0


@contextmanager
def one_thread() -> Iterator[None]:
    """As in DataLoader's workers: with another number of threads a convolution rounds its last bits another way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class MiniWorld:
    """Data of the mini-world; see :class:`~dv2_core.train.data.Data`."""

    def __init__(self, config: MiniWorldConfig, draws: Draws) -> None:
        self.config, self.draws = config, draws
        atlas = Atlas.load(config.atlas)
        self.latent = PatchPCA.load(config.latent)
        self.tokenizer = WordTokenizer(vocabulary(atlas))
        self.world = World(atlas, "train", config.size, config.num_frames, draws.seed)
        self.held_out = World(atlas, "test", config.size, config.num_frames, HELD_OUT_SEED)
        self.words: list[str] | None = self.tokenizer.words
        side = config.size // PATCH
        self.size = DataSize(
            clips=None, held_out=None, num_frames=config.num_frames, frame_size=config.frame_size,
            latent=(self.latent.channels, side, side), text_tokens=config.text_tokens, context_dim=None,
        )  # fmt: skip

    def prepare(self, process: int, processes: int, device: torch.device) -> None:
        """Nothing: clips are drawn as fast as they could be read."""

    @one_thread()
    def batch(self, step: int, process: int = 0, processes: int = 1) -> Batch:
        index, size = step * processes + process, self.draws.batch
        numbers = step_numbers(self.draws, index, self.config.num_frames, self.size.latent)
        clips = [self.world.clip(index * size + n) for n in range(size)]
        captions = [clip.caption if kept else "" for clip, kept in zip(clips, numbers.keep_text, strict=True)]
        return Batch(
            latents=self.latent.encode(torch.cat([clip.frames for clip in clips])),
            masks=torch.cat([clip.masks for clip in clips])[:, None],
            subject=self.latent.encode(torch.stack([clip.subject for clip in clips])),
            noise=numbers.noise, timesteps=numbers.timesteps,
            keep_ref=numbers.keep_ref, keep_motion=numbers.keep_motion,
            tokens=self.tokens(captions), index=index,
        )  # fmt: skip

    def batches(self, start: int, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        return prefetched(self, start, process, processes, self.config.workers)

    def validation(self) -> list[Batch]:
        return [self._validation_batch(n) for n in range(self.config.validation_clips)]

    def _validation_batch(self, n: int) -> Batch:
        clip, repeats = self.held_out.clip(n), len(LADDER)
        return Batch(
            latents=self.latent.encode(clip.frames).repeat(repeats, 1, 1, 1),
            masks=clip.masks[:, None].repeat(repeats, 1, 1, 1),
            subject=self.latent.encode(clip.subject[None]).repeat(repeats, 1, 1, 1),
            tokens=self.tokens([clip.caption]).repeat(repeats, 1),
            **ladder_numbers(n, self.config.num_frames, self.size.latent),
        )

    def samples(self, n: int) -> list[Sample]:
        return [self._sample(self.held_out.clip(number)) for number in range(n)]

    def _sample(self, clip: Clip) -> Sample:
        tokens = self.tokens([clip.caption, ""])
        return Sample(
            picture=clip.subject, boxes=BoxTrack(tuple(tuple(box) for box in clip.boxes.tolist())),
            caption=clip.caption, subject=self.latent.encode(clip.subject[None])[0], masks=clip.masks[:, None],
            tokens=tokens[0], empty_tokens=tokens[1],
        )  # fmt: skip

    def decode(self, latents: Tensor) -> Tensor:
        """By the patch PCA, which shows its grid."""
        return self.latent.decode(latents.cpu()).clamp(0, 1).to(latents.device)

    def tokens(self, captions: list[str]) -> Tensor:
        return torch.tensor([self.tokenizer.encode(caption, self.config.text_tokens) for caption in captions])

"""Batches of the mini-world as the trainer takes them: latents, box masks, tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..diffusion.schedule import TRAIN_STEPS
from ..world.atlas import Atlas
from ..world.clips import World
from ..world.latent import PatchPCA
from ..world.text import WordTokenizer, vocabulary
from .config import TrainConfig


@dataclass(frozen=True)
class Batch:
    """B clips of F frames with the random numbers of their training step."""

    latents: Tensor  # [B * F, C, h, w], clean
    masks: Tensor  # [B * F, 1, H, W], 1 inside the box
    subject: Tensor  # [B, C, h, w], clean
    tokens: Tensor  # [B, L]
    noise: Tensor  # [B * F, C, h, w]
    timesteps: Tensor  # [B]
    keep_ref: Tensor  # [B] 0 or 1
    keep_motion: Tensor  # [B] 0 or 1

    def to(self, device: torch.device) -> Batch:
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Batches:
    """The batch of every (step, process): a pure function of the seed, so that resuming needs no generator state."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        atlas = Atlas.load(config.atlas)
        self.latent = PatchPCA.load(config.latent)
        self.tokenizer = WordTokenizer(vocabulary(atlas))
        self.worlds = {
            split: World(atlas, split, config.size, config.num_frames, config.seed) for split in ("train", "test")
        }

    def __call__(self, step: int, process: int = 0, processes: int = 1, split: str = "train") -> Batch:
        config = self.config
        first = (step * processes + process) * config.batch
        generator = torch.Generator().manual_seed(config.seed * 1_000_000_007 + step * processes + process)

        def keep(chance_to_drop: float) -> Tensor:
            return (torch.rand(config.batch, generator=generator) >= chance_to_drop).float()

        keep_text = keep(config.drop_text)
        clips = [self.worlds[split].clip(first + n) for n in range(config.batch)]
        captions = [clip.caption if kept else "" for clip, kept in zip(clips, keep_text.tolist(), strict=True)]
        latents = self.latent.encode(torch.cat([clip.frames for clip in clips]))
        return Batch(
            latents=latents,
            masks=torch.cat([clip.masks for clip in clips])[:, None],
            subject=self.latent.encode(torch.stack([clip.subject for clip in clips])),
            tokens=self.tokens(captions),
            noise=torch.randn(latents.shape, generator=generator),
            timesteps=torch.randint(0, TRAIN_STEPS, (config.batch,), generator=generator),
            keep_ref=keep(config.drop_ref),
            keep_motion=keep(config.drop_motion),
        )

    def tokens(self, captions: list[str]) -> Tensor:
        return torch.tensor([self.tokenizer.encode(caption, self.config.text_tokens) for caption in captions])

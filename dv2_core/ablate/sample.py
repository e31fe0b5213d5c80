"""Batched sampling with the training model: the whole method on validation pairs, without a ComfyUI.

The nodes compute the same (a test of the engine holds the two against each other); what this leaves out is one prompt
per clip.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..evaluate.pairs import Pair, to_bytes
from ..world.latent import PATCH, MiniVAE
from ..world.text import WordTokenizer
from .rows import Row
from .study import Study, read_metadata

BATCH = 8  # clips at a time: more are not faster on a CPU and fill its memory


class Sampler:
    """Exported weights with the sampling of a row (steps, cfg, what the unconditional branch keeps).

    Args:
        weights: folder with base, text encoder and adapter. Without an adapter file the adapter is new.
    """

    def __init__(self, study: Study, row: Row, seed: int, weights: Path) -> None:
        from ..train.files import TEXT, load_exported
        from ..train.model import TrainingModel

        self.config = study.config(row, seed)
        self.frames = study.clips["num_frames"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        text = read_metadata(weights / TEXT)
        self.tokenizer = WordTokenizer(json.loads(text["dreamvideo2.words"]))
        self.text_tokens = json.loads(text["dreamvideo2.text"])["max_position_embeddings"]
        self.model = TrainingModel(self.config, len(self.tokenizer), self.device).eval()
        load_exported(self.model, weights)
        self.model.to(self.device)
        self.vae = MiniVAE.load(study.vae).to(self.device)

    def clips(self, pairs: list[Pair]) -> list[np.ndarray]:
        """One clip per pair, uint8 [F, H, W, 3]; the noise of pair i is the same for every row, seed and step."""
        from tqdm import tqdm

        made: list[np.ndarray] = []
        with tqdm(total=len(pairs), unit="clip", desc="sampling", leave=False) as bar:
            for start in range(0, len(pairs), BATCH):
                part = pairs[start : start + BATCH]
                made += [to_bytes(frames) for frames in self._decode(self._latents(part)).cpu()]
                bar.update(len(part))
        return made

    @torch.no_grad()
    def _latents(self, pairs: list[Pair]) -> Tensor:
        """[B * F, C, h, w]"""
        config, count = self.config, len(pairs)
        masks = torch.cat([pair.clip.masks for pair in pairs])[:, None].to(self.device)  # [B * F, 1, H, W]
        subject = self.vae.encode(torch.stack([pair.clip.subject for pair in pairs]).to(self.device))
        tokens = self._tokens([pair.clip.caption for pair in pairs])
        empty = self._tokens([""] * count)
        shape = (self.frames, config.unet.in_channels, *(side // PATCH for side in masks.shape[2:]))
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(pair.number)) for pair in pairs]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
            return self.model.sample(
                torch.cat(noise).to(self.device), tokens, empty, subject, masks, config.adapter.steps
            )

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        """[B * F, C, h, w] -> frames [B, F, 3, H, W]"""
        return self.vae.decode(latents).unflatten(0, (-1, self.frames))

    def _tokens(self, captions: list[str]) -> Tensor:
        """[B, L]"""
        ids = [self.tokenizer.encode(caption, self.text_tokens) for caption in captions]
        return torch.tensor(ids, device=self.device)

"""Sample sheets while training: held-out subjects along their boxes, with the boxes drawn."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from ..boxes import BoxTrack, draw_boxes
from ..diffusion import ddim_sample
from .data import Batches
from .model import TrainingModel


@torch.no_grad()
def sample_sheet(model: TrainingModel, batches: Batches, path: Path, clips: int = 6, steps: int = 20) -> None:
    """One row per held-out clip: the subject, then its frames with the requested boxes drawn, linear decoding."""
    config = model.config
    device = next(model.parameters()).device
    held_out = [batches.worlds["test"].clip(n) for n in range(clips)]
    f = config.num_frames
    masks = torch.cat([clip.masks for clip in held_out])[:, None].to(device)
    subject = batches.latent.encode(torch.stack([clip.subject for clip in held_out])).to(device)
    tokens = batches.tokens([clip.caption for clip in held_out]).to(device)
    empty = batches.tokens([""] * clips).to(device)
    ones = torch.ones(clips, device=device)
    keep_uncond = ones if config.adapter.ref_uncond == "same" else torch.zeros_like(ones)

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        times = torch.full((clips,), t, device=device)
        cond = model.predict(x, times, tokens, subject, masks, ones, ones)
        uncond = model.predict(x, times, empty, subject, masks, keep_uncond, ones)
        return uncond + config.adapter.cfg * (cond - uncond)

    shape = (clips * f, config.unet.in_channels, config.size // 8, config.size // 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    latents = ddim_sample(predict, noise, steps, config.adapter.prediction).cpu()
    frames = batches.latent.decode(latents).clamp(0, 1).permute(0, 2, 3, 1).unflatten(0, (clips, f))  # [N, F, H, W, 3]
    rows = []
    for clip, row in zip(held_out, frames, strict=True):
        drawn = draw_boxes(row, BoxTrack(tuple(tuple(box) for box in clip.boxes.tolist())))
        rows.append(torch.cat([clip.subject.permute(1, 2, 0), *drawn], dim=1))
    sheet = (torch.cat(rows) * 255).round().to(torch.uint8).numpy()
    image = Image.fromarray(sheet)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)

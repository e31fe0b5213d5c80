"""Sample videos while training: held-out subjects along their boxes, at fixed noise, with the boxes drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..boxes import draw_boxes
from .data import Data, Sample
from .model import TrainingModel

GAP = 4  # pixels between the videos of a sheet


@torch.no_grad()
def generate(model: TrainingModel, data: Data, sample: Sample, seed: int) -> Tensor:
    """One video for a held-out example, with its boxes drawn: [F, H, W, 3] in 0..1, on the CPU."""
    config, device = model.config, next(model.parameters()).device

    text, empty = sample.tokens, sample.empty_tokens
    if text is None or empty is None:
        text, empty = sample.context, sample.empty_context
    assert text is not None and empty is not None
    text, empty = text[None].to(device), empty[None].to(device)
    masks, subject = sample.masks.to(device), sample.subject[None].to(device)
    shape = (len(masks), config.unet.in_channels, *sample.subject.shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    latents = model.sample(noise, text, empty, subject, masks, config.sampling_steps)
    frames = data.decode(latents).clamp(0, 1).permute(0, 2, 3, 1).float().cpu()  # [F, H, W, 3]
    return draw_boxes(frames, sample.boxes)


def write_samples(model: TrainingModel, data: Data, folder: Path, step: int,
                  autocast: AbstractContextManager[None]) -> Path:  # fmt: skip
    """Generate the fixed examples -> ``folder/STEP.png`` (one row each: subject, then frames) and ``STEP.mp4``.

    Returns the path of the sheet.
    """
    examples = data.samples(model.config.samples)
    with autocast:
        videos = [generate(model, data, example, seed) for seed, example in enumerate(examples)]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [example.picture.permute(1, 2, 0) for example in examples]
    path = folder / f"{step:08d}.png"
    write_sheet(pictures, videos, path)
    film = [
        _below([_beside([picture, video[t]]) for picture, video in zip(pictures, videos, strict=True)])
        for t in range(len(videos[0]))
    ]
    write_video(torch.stack(film), model.config.adapter.trained[3], path.with_suffix(".mp4"))
    return path


def write_sheet(pictures: Sequence[Tensor], videos: Sequence[Tensor], path: Path, columns: int = 8) -> None:
    """One row per video: the subject picture [H, W, 3], then up to ``columns`` frames spread over the video."""
    rows = []
    for picture, video in zip(pictures, videos, strict=True):
        chosen = torch.linspace(0, len(video) - 1, min(columns, len(video))).round().long()
        rows.append(_beside([picture, *video[chosen]]))
    sheet = Image.fromarray((_below(rows) * 255).round().to(torch.uint8).numpy())
    if videos[0].shape[1] < 128:
        sheet = sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST)
    temporary = path.with_suffix(".tmp")
    sheet.save(temporary, "PNG")
    os.replace(temporary, path)


def write_video(frames: Tensor, fps: int, path: Path) -> None:
    """frames [F, H, W, 3] in 0..1 -> an mp4 that browsers play."""
    import av

    pixels = (frames * 255).round().to(torch.uint8)
    scale = 2 if max(pixels.shape[1:3]) < 512 else 1
    pixels = pixels.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    height, width = pixels.shape[1] // 2 * 2, pixels.shape[2] // 2 * 2  # yuv420p takes even sizes
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in pixels[:, :height, :width].numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _beside(pictures: Sequence[Tensor]) -> Tensor:
    height = pictures[0].shape[0]
    gap = torch.ones(height, GAP, 3)
    return torch.cat([part for picture in pictures for part in (picture, gap)][:-1], dim=1)


def _below(pictures: Sequence[Tensor]) -> Tensor:
    gap = torch.ones(GAP, pictures[0].shape[1], 3)
    return torch.cat([part for picture in pictures for part in (picture, gap)][:-1], dim=0)

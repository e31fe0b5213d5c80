"""Files of a training: resumable checkpoints, the exported weights, and reading them back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..model import fingerprint, read_adapter, save_adapter
from .model import TrainingModel, text_config

BASE, TEXT, ADAPTER = "dv2-mini-base.safetensors", "dv2-mini-text.safetensors", "dv2-mini-adapter.safetensors"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write whole or not at all: a kill in the middle leaves the previous checkpoint."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def export(model: TrainingModel, words: list[str], folder: Path, step: int) -> None:
    """Write base, text encoder and adapter as the nodes load them (fp16 safetensors with metadata)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    base = half(model.base.state_dict())
    metadata = {
        "format": "dreamvideo2-base",
        "dreamvideo2.unet": json.dumps(config.unet.to_dict()),
        "dreamvideo2.prediction": config.adapter.prediction,
        "dreamvideo2.latent": "dv2-mini",
        "training.step": str(step),
        "license": "Apache-2.0",
    }
    save_file(base, folder / BASE, metadata=metadata)
    shape = text_config(config, len(words) + 4)
    metadata = {
        "format": "dreamvideo2-text",
        "dreamvideo2.text": json.dumps({k: getattr(shape, k) for k in TEXT_KEYS}),
        "dreamvideo2.words": json.dumps(words),
        "license": "Apache-2.0",
    }
    save_file(half(model.text.state_dict()), folder / TEXT, metadata=metadata)
    if model.adapter is not None:
        extra = {"base_model.name": BASE, "training.step": str(step), "license": "Apache-2.0"}
        save_adapter(model.adapter, folder / ADAPTER, torch.float16, fingerprint(base), extra)


TEXT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "eos_token_id",
)  # fmt: skip


def load_exported(model: TrainingModel, folder: Path) -> None:
    """Start from exported weights; an adapter that starts anew copies its ControlNet from the base."""
    model.base.load_state_dict(load_file(folder / BASE))
    model.text.load_state_dict(load_file(folder / TEXT))
    if model.adapter is not None:
        if (folder / ADAPTER).exists():
            model.adapter.load_file_state_dict(read_adapter(folder / ADAPTER)[2])
        else:
            model.adapter.initialize_weights(model.base)


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().to(torch.float16).contiguous() for k, v in weights.items() if v.is_floating_point()}

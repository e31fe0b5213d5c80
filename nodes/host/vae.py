"""VAEs: what the stock VAELoader takes, with a sentence for what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd

from . import files

IN_CHECKPOINT = "first_stage_model."


def load_vae(path: Path) -> Any:
    """A VAE from a file: any Stable Diffusion 1.x or 2.x VAE for ModelScope, or the miniature's.

    Also the one in a whole checkpoint, such as ModelScope's ``VQGAN_autoencoder.pth``; of that only the VAE is read.
    """
    weights, metadata = files.load_weights(path)
    if any(key.startswith(IN_CHECKPOINT) for key in weights):
        weights = {k.removeprefix(IN_CHECKPOINT): v for k, v in weights.items() if k.startswith(IN_CHECKPOINT)}
    vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    if vae.first_stage_model is None:
        raise ValueError(f"{path.name} is not a VAE. Choose one from models/vae, or dv2-mini-vae.safetensors.")
    return vae

"""VAEs: what the stock VAELoader takes, with a sentence for what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd

from . import files


def load_vae(path: Path) -> Any:
    """A VAE from a file: any Stable Diffusion 1.x or 2.x VAE for ModelScope, or the miniature's."""
    weights, metadata = files.load_weights(path)
    vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    if vae.first_stage_model is None:
        raise ValueError(f"{path.name} is not a VAE. Choose one from models/vae, or dv2-mini-vae.safetensors.")
    return vae

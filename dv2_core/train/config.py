"""One TOML file says everything about a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import tomllib

from ..model import AdapterConfig, UNet3DConfig

PARTS = ("base", "text", "adapter")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training; the TOML keys are these names, with tables ``[unet]`` and ``[adapter]``.

    Attributes:
        trains: the parts that learn: "base" (UNet), "text" (text encoder), "adapter". What is not named stays frozen.
        init: folder of exported weights to start from; "" starts from random ones.
        atlas, latent: files of the mini-world (see ``dv2_core.world``).
        size, num_frames: of the clips.
        text_width, text_layers, text_heads, text_tokens: shape of the CLIP text encoder.
        steps: optimiser steps. batch: clips per process and step. accumulate: batches per optimiser step.
        lr, warmup, weight_decay, betas, grad_clip: AdamW; the rate is constant for the first half, then cosine to 5 %.
        ema: decay of the weights' moving average, which is what is exported.
        drop_text, drop_ref, drop_motion: chances of training a clip without that condition.
        mixed_precision: "no" or "bf16".
        save_minutes: a resumable checkpoint at least this often. preview_steps: sample sheet and export this often.
    """

    trains: tuple[str, ...]
    atlas: str
    latent: str
    steps: int
    init: str = ""
    unet: UNet3DConfig = field(default_factory=UNet3DConfig.miniature)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    size: int = 64
    num_frames: int = 8
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    text_tokens: int = 16
    batch: int = 8
    accumulate: int = 1
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    grad_clip: float = 1.0
    ema: float = 0.998
    drop_text: float = 0.1
    drop_ref: float = 0.1
    drop_motion: float = 0.1
    mixed_precision: Literal["no", "bf16"] = "no"
    seed: int = 0
    save_minutes: float = 5.0
    preview_steps: int = 500

    def __post_init__(self) -> None:
        if not self.trains or set(self.trains) - set(PARTS):
            raise ValueError(f"trains is {list(self.trains)}; name one or more of {list(PARTS)}.")
        for name in ("steps", "batch", "accumulate", "num_frames", "preview_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")

    @property
    def has_adapter(self) -> bool:
        return "adapter" in self.trains

    @classmethod
    def from_toml(cls, path: Path) -> TrainConfig:
        """Read a config file; a key that is not a setting is refused by name."""
        with path.open("rb") as file:
            return cls.from_dict(tomllib.load(file))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown setting {unknown} in the training config; known are {sorted(known)}.")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        unet = UNet3DConfig.from_dict(settings["unet"]) if "unet" in settings else UNet3DConfig.miniature()
        adapter = AdapterConfig.from_dict({**settings.get("adapter", {}), "unet": unet.to_dict()})
        return cls(**{**settings, "unet": unet, "adapter": adapter})

"""The adapter: reference attentions and motion module in one safetensors file; its metadata states every choice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..diffusion.schedule import Prediction
from .attention import AttentionFunction, sdpa_attention
from .config import UNet3DConfig
from .motion import MotionModule
from .reference import ReferenceAttentions

FORMAT, FORMAT_VERSION = "dreamvideo2-adapter", "1"


@dataclass(frozen=True)
class AdapterConfig:
    """Choices of the method, those that the paper leaves open included. Stored as the file's ``dreamvideo2.config``.

    Attributes:
        unet: sizes of the base that the adapter belongs to.
        components: which parts the file has: "ref", "motion" or both.
        encoder_channels, encoder_heads: sizes of the motion encoder.
        motion_encoder: "none" replaces the spatiotemporal encoder by one convolution of the resized c_m (Table 6, "no
            motion encoder").
        motion_control: "t2i_adapter" replaces the ControlNet, a copy of the base's spatial encoder, by a pyramid of
            convolutions of the hint alone.
        ref_head_dim: width of one head of reference attention, a divisor of every transformer's width; 0: the base's.
        ref_sharing: "width" gives all reference attentions of one width the same projections.
        lambda_m: weight of reference attention outside the boxes, 0..1 (paper: 0.75).
        lambda_l: loss weight inside the boxes (paper: 2).
        ref_features: what Z' is: an attention's own output, or the normalised hidden states after it.
        ref_position: "box" tells reference attention where a token lies in its box (not in the paper).
        ref_timestep: the subject's timestep: "zero" (its keys and values are then constants of a run) or "video".
        ref_noise, ref_prompt: the subject is clean, with the text of the branch it serves. The only choice so far.
        mask_resize, controlnet_input, hint: box masks are area-averaged to every feature size; a ControlNet sees z_t
            plus the encoded hint c_m = 1 - M. The only choice so far.
        ref_uncond: subject in the unconditional branch: "drop", or "same" (as the conditional one has it).
        motion_uncond: boxes in the unconditional branch: "drop" or "same". With both "drop" that branch is the base
            alone and guidance acts on everything; with both "same" it acts on the text alone. The paper does not say.
        prediction: what the base predicts, and on which noise schedule (see :mod:`dv2_core.diffusion.schedule`).
        steps, cfg: recommended sampling (paper: 50 DDIM steps, guidance 9).
        trained: (frames, width, height, fps) of the training clips.
    """

    unet: UNet3DConfig = field(default_factory=UNet3DConfig)
    components: tuple[str, ...] = ("ref", "motion")
    encoder_channels: tuple[int, ...] = (16, 32, 96, 256)
    encoder_heads: int = 4
    motion_encoder: Literal["spatiotemporal", "none"] = "spatiotemporal"
    motion_control: Literal["controlnet", "t2i_adapter"] = "controlnet"
    ref_head_dim: int = 0
    ref_sharing: Literal["none", "width"] = "none"
    ref_features: Literal["attention", "hidden"] = "attention"
    ref_position: Literal["none", "box"] = "none"
    lambda_m: float = 0.75
    lambda_l: float = 2.0
    ref_timestep: Literal["zero", "video"] = "zero"
    ref_noise: Literal["clean"] = "clean"
    ref_prompt: Literal["video"] = "video"
    mask_resize: Literal["area"] = "area"
    controlnet_input: Literal["latent+hint"] = "latent+hint"
    hint: Literal["1-M"] = "1-M"
    ref_uncond: Literal["same", "drop"] = "drop"
    motion_uncond: Literal["same", "drop"] = "drop"
    prediction: Prediction = "eps"
    steps: int = 50
    cfg: float = 9.0
    trained: tuple[int, int, int, int] = (16, 448, 256, 8)

    def __post_init__(self) -> None:
        if not self.components or not set(self.components) <= {"ref", "motion"}:
            raise ValueError(f"components is {self.components}; it must name 'ref', 'motion' or both.")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {get_args(hint)}.")
        if len(self.encoder_channels) != 4 or self.encoder_channels[-1] % self.encoder_heads:
            raise ValueError(
                f"encoder_channels is {self.encoder_channels}; it must be four widths (of 1, 1/2, 1/4 and 1/8 of the "
                f"resolution), the last one a multiple of encoder_heads, {self.encoder_heads}."
            )
        widths = sorted(set(self.unet.transformer_widths().values()))
        if self.ref_head_dim < 0 or (self.ref_head_dim and any(width % self.ref_head_dim for width in widths)):
            raise ValueError(
                f"ref_head_dim is {self.ref_head_dim}; it must divide every transformer width of the base, {widths}, "
                "or be 0 for the base's head_dim."
            )
        if not 0.0 <= self.lambda_m <= 1.0:
            raise ValueError(f"lambda_m is {self.lambda_m}; it must be from 0 to 1.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterConfig:
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown adapter setting {unknown}; known are {[f.name for f in fields(cls)]}.")
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if "unet" in known:
            known["unet"] = UNet3DConfig.from_dict(known["unet"])
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Adapter(nn.Module):
    """Reference attentions (``ref.*``) and motion module (``motion.encoder.*``, ``controlnet.*``), each optional."""

    def __init__(self, config: AdapterConfig, operations: Any = nn, attention: AttentionFunction = sdpa_attention,
                 dtype: torch.dtype | None = None, device: Any = None) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        make: dict[str, Any] = dict(operations=operations, attention=attention, dtype=dtype, device=device)
        self.ref, self.motion = None, None
        if "ref" in config.components:
            choices = config.ref_head_dim, config.ref_sharing, config.ref_features, config.ref_position
            self.ref = ReferenceAttentions(config.unet, *choices, **make)
        if "motion" in config.components:
            sizes = config.encoder_channels, config.encoder_heads
            self.motion = MotionModule(config.unet, *sizes, config.motion_encoder, config.motion_control, **make)

    def initialize_weights(self, base: Any) -> None:
        if self.ref is not None:
            self.ref.initialize_weights()
        if self.motion is not None:
            self.motion.initialize_weights(base)

    def file_state_dict(self) -> dict[str, Tensor]:
        """Weights under the names of the file: the ControlNet keeps a prefix of its own, so that it loads alone."""
        return {k.replace("motion.controlnet.", "controlnet."): v for k, v in self.state_dict().items()}

    def load_file_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        self.load_state_dict(self.own_state_dict(weights))

    def own_state_dict(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The file's weights under the names of this module; ValueError if they do not fit it."""
        renamed = {("motion." + k if k.startswith("controlnet.") else k): v for k, v in weights.items()}
        expected = self.state_dict()
        missing, unexpected = sorted(expected.keys() - renamed.keys()), sorted(renamed.keys() - expected.keys())
        wrong = [k for k in expected.keys() & renamed.keys() if expected[k].shape != renamed[k].shape]
        if missing or unexpected or wrong:
            raise ValueError(
                f"the adapter's weights do not fit its own settings: {len(missing)} missing (such as {missing[:1]}), "
                f"{len(unexpected)} unexpected ({unexpected[:1]}), {len(wrong)} of another shape ({wrong[:1]}). "
                "The file is damaged or was written by another program; get it again."
            )
        return renamed


def save_adapter(
    adapter: Adapter, path: Path, dtype: torch.dtype, base_fingerprint: str, extra: Mapping[str, str]
) -> None:
    """Write the adapter with its metadata; ``extra`` adds strings such as ``license`` or ``training.step``."""
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "modelspec.architecture": "modelscope-t2v/dreamvideo2",
        "dreamvideo2.config": json.dumps(adapter.config.to_dict()),
        "base_model.fingerprint": base_fingerprint,
        **extra,
    }
    temporary = path.with_suffix(".tmp")
    save_file({k: v.to(dtype).contiguous() for k, v in adapter.file_state_dict().items()}, temporary, metadata=metadata)
    os.replace(temporary, path)  # whole or not at all


def read_adapter(path: Path) -> tuple[AdapterConfig, dict[str, str], dict[str, Tensor]]:
    """Read settings, metadata and weights of an adapter file. Raises ValueError with a sentence for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            config = _read_config(path.name, metadata)
            weights = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path.name} cannot be read as a safetensors adapter ({error}). It is empty, cut short or another kind of "
            "file under this name; download it again or choose another."
        ) from error
    if not weights:
        raise ValueError(f"{path.name} has an adapter's settings but no weights; download it again or choose another.")
    return config, metadata, weights


def _read_config(name: str, metadata: Mapping[str, str]) -> AdapterConfig:
    given, version = metadata.get("format", "nothing"), metadata.get("format_version")
    if given != FORMAT:
        raise ValueError(
            f"{name} is not a DreamVideo-2 adapter: its metadata says format {given!r}, not {FORMAT!r}. "
            "Choose a file written by this pack's trainer."
        )
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{name} has version {version!r} of the adapter format, and this pack reads version {FORMAT_VERSION!r}. "
            "Update the pack, or choose another adapter."
        )
    try:
        return AdapterConfig.from_dict(json.loads(metadata.get("dreamvideo2.config", "")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the settings in the metadata of {name} cannot be used: {error} "
            "Update the pack if the file is newer than it; otherwise the file is damaged, get it again."
        ) from error


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Name of a base's weights: the same for its fp32 and fp16 file.

    SHA-256 over all (key, shape) pairs and the fp16 bytes of eight tensors spread over the sorted keys.
    """
    digest, keys = hashlib.sha256(), sorted(weights)
    for key in keys:
        digest.update(f"{key}{tuple(weights[key].shape)}".encode())
    for key in keys[:: max(1, len(keys) // 8)][:8]:
        digest.update(weights[key].detach().to("cpu", torch.float16).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

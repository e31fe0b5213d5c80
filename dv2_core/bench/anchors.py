"""The public implementations that this package is compared with, with the same weights in the same memory."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..checkpoints import original_to_diffusers
from ..model import UNet3D, UNet3DConfig


def modelscope_module(folder: Path, name: str) -> ModuleType:
    """``unet_sd`` or ``diffusion`` of modelscope 1.40.2's ``multi_modal/video_synthesis``, loaded by path."""
    path = folder / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"{path} is missing; give a folder with unet_sd.py and diffusion.py of modelscope 1.40.2.")
    spec = importlib.util.spec_from_file_location(f"modelscope_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def modelscope_unet(config: UNet3DConfig, folder: Path) -> nn.Module:
    """ModelScope's ``UNetSD`` with the arguments of the published ``configuration.json`` at the sizes of ``config``."""
    return modelscope_module(folder, "unet_sd").UNetSD(
        in_dim=config.in_channels,
        dim=config.model_channels,
        y_dim=768,
        context_dim=config.context_dim,
        out_dim=config.out_channels,
        dim_mult=list(config.channel_mult),
        num_heads=config.init_temporal_heads,
        head_dim=config.head_dim,
        num_res_blocks=config.num_res_blocks,
        attn_scales=[0.5**level for level in config.attention_levels],
        dropout=0.1,
        temporal_attention=True,
    )


def diffusers_unet(config: UNet3DConfig) -> Any:
    """diffusers' ``UNet3DConditionModel``; a config without ``init_temporal_heads`` 8 does not exist there."""
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel  # the extra "train"

    return UNet3DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=tuple(config.width(level) for level in range(len(config.channel_mult))),
        layers_per_block=config.num_res_blocks,
        cross_attention_dim=config.context_dim,
        attention_head_dim=config.head_dim,  # type: ignore[arg-type]
        norm_num_groups=32,
        norm_eps=1e-5,
    )


def diffusers_twin(unet: UNet3D) -> Any:
    """diffusers' UNet on the very tensors of ``unet``: no second copy in memory."""
    with torch.device("meta"):
        twin = diffusers_unet(unet.config)
    twin.load_state_dict(original_to_diffusers(unet.state_dict(), unet.config), assign=True)
    return twin.eval().requires_grad_(False)


def modelscope_twin(unet: UNet3D, folder: Path) -> Any:
    """ModelScope's UNet on the very tensors of ``unet``."""
    with torch.device("meta"):
        twin = modelscope_unet(unet.config, folder)
    twin.load_state_dict(unet.state_dict(), assign=True)
    return twin.eval().requires_grad_(False)

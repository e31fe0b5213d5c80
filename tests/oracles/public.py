"""Public implementations that the tests compare with, and the tiny network sizes used for it."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dv2_core.model import UNet3DConfig

REPO = Path(__file__).resolve().parents[2]
MODELSCOPE = Path(os.environ.get("DV2_MODELSCOPE") or REPO / ".cache" / "modelscope")

# Same depth and wiring as the full size; ModelScope's decoder accepts no context width but 1024.
TINY = UNet3DConfig(model_channels=32, head_dim=8, init_temporal_heads=8, context_dim=1024)
# Two levels, one ResBlock each: for what does not depend on the depth.
SMALL = UNet3DConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(0, 1),
    head_dim=8,
    init_temporal_heads=2,
    context_dim=32,
)


def modelscope(name: str) -> ModuleType:
    """``unet_sd`` or ``diffusion`` of modelscope 1.40.2's ``multi_modal/video_synthesis``, loaded by path."""
    path = MODELSCOPE / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: run `python3.11 scripts/test.py`, which fetches it, or set DV2_MODELSCOPE to a folder "
            "with unet_sd.py and diffusion.py of modelscope 1.40.2."
        )
    spec = importlib.util.spec_from_file_location(f"oracle_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def modelscope_unet(config: UNet3DConfig) -> nn.Module:
    """ModelScope's ``UNetSD`` with the arguments of the published ``configuration.json`` at the sizes of ``config``."""
    return modelscope("unet_sd").UNetSD(
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
    from diffusers import UNet3DConditionModel

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


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Make every parameter random (zero initialisations hide faults), scaled so that activations stay near one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(values / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(values * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    return module.eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """max |ours - reference| / max |reference|."""
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max() / reference.abs().max())

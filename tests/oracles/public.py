"""Public implementations that the tests compare with, and the tiny network sizes used for it."""

import os
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from dv2_core.bench import anchors
from dv2_core.bench.anchors import diffusers_unet as diffusers_unet
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
    return anchors.modelscope_module(MODELSCOPE, name)


def modelscope_unet(config: UNet3DConfig) -> nn.Module:
    modelscope("unet_sd")  # says what to do where it is missing
    return anchors.modelscope_unet(config, MODELSCOPE)


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

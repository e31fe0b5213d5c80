"""The networks on ``comfy.ops.manual_cast``: weights stored in one dtype, computed in another."""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from dv2_core.model import (
    MotionModule,
    Reference,
    ReferenceAttentions,
    UNet3D,
    blended_mask,
    reference_patches,
    subject_features,
)
from tests.oracles.public import SMALL, noise, randomise, relative_error

ENCODER = {"encoder_channels": (8, 8, 16, 32), "encoder_heads": 2}


def whole_method(unet: Any, attentions: Any, motion: Any, dtype: torch.dtype, size: tuple[int, int]) -> Tensor:
    """Two videos of three frames with subject and boxes, as the nodes run them; masks stay fp32."""
    masks = torch.zeros(6, 1, 8 * size[0], 8 * size[1])
    masks[:, :, 3:20, 4:25] = 1.0
    x, context, t = noise(6, 4, *size).to(dtype), noise(2, 5, 32, seed=2).to(dtype), torch.tensor([801.0, 37.0])
    features = subject_features(unet, noise(2, 4, 4, 6, seed=3).to(dtype), torch.zeros(2), context)
    reference = Reference(attentions, attentions.keys_values(features), blended_mask(masks, 0.75))
    control = motion(x, masks.to(dtype), t, context, 3)
    options = {"patches": reference_patches(), "dv2_reference": reference}
    return unet(x, t, context, 3, control=control, transformer_options=options)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize(
    ("stored", "computed", "bound"),
    [
        ("float16", "float32", 1e-5),
        ("float8_e4m3fn", "float32", 1e-5),
        ("float16", "float16", 0.02),
        ("float32", "float16", 0.02),
        ("bfloat16", "bfloat16", 0.1),
        ("float8_e4m3fn", "bfloat16", 0.1),
    ],
)
@torch.no_grad()
def test_every_layer_computes_in_the_dtype_of_the_latent_whatever_the_weights_are_stored_in(
    stored: str, computed: str, bound: float, size: tuple[int, int], comfy: Any
) -> None:
    comfy()
    host = {
        "operations": importlib.import_module("comfy.ops").manual_cast,
        "attention": importlib.import_module("comfy.ldm.modules.attention").optimized_attention,
        "dtype": getattr(torch, stored),
    }
    compute = getattr(torch, computed)
    low, full = [], []
    for seed, (cls, more) in enumerate(((UNet3D, {}), (ReferenceAttentions, {}), (MotionModule, ENCODER))):
        plain = randomise(cls(SMALL, **more), seed=seed)
        cast = cls(SMALL, **more, **host)
        cast.load_state_dict(plain.state_dict())
        plain.load_state_dict({k: v.float() for k, v in cast.state_dict().items()})  # the very weights that are stored
        low.append(cast.eval())
        full.append(plain)
    other: set[str] = set()
    for root in low:
        for name, module in root.named_modules():

            def check(module: Any, given: Any, out: Any, name: str = name) -> None:
                if isinstance(out, Tensor) and out.dtype != compute:
                    other.add(f"{name} gives {out.dtype}")

            module.register_forward_hook(check)
    out = whole_method(*low, compute, size)
    assert out.dtype == compute and not other
    assert relative_error(out.float(), whole_method(*full, torch.float32, size)) <= bound

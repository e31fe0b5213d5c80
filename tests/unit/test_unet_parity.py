"""The UNet against both public implementations, all parameters random."""

from typing import Any

import pytest
import torch
from einops import rearrange

from dv2_core.checkpoints import diffusers_to_original, original_to_diffusers
from dv2_core.model import UNet3D, UNet3DConfig, plain_attention
from tests.oracles.public import TINY, diffusers_unet, modelscope_unet, noise, randomise, relative_error

BOUND = 1e-5
SIZE = (16, 24)  # ModelScope needs sides that 8 divides


@pytest.fixture(scope="module")
def unet() -> Any:
    return randomise(UNet3D(TINY))


@pytest.fixture(scope="module")
def modelscope(unet: Any) -> Any:
    model = modelscope_unet(TINY)
    model.load_state_dict(unet.state_dict(), strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def diffusers(unet: Any) -> Any:
    model = diffusers_unet(TINY)
    model.load_state_dict(original_to_diffusers(unet.state_dict(), TINY), strict=True)
    return model.eval()


def inputs(videos: int, frames: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {
        "x": noise(videos * frames, TINY.in_channels, *size, seed=frames),
        "timesteps": torch.tensor([37.0, 801.0])[:videos],
        "context": noise(videos, 7, TINY.context_dim, seed=2),
        "num_video_frames": frames,
    }


@torch.no_grad()
def as_modelscope(model: Any, x: Any, timesteps: Any, context: Any, num_video_frames: int) -> torch.Tensor:
    out = model(rearrange(x, "(b f) c h w -> b c f h w", f=num_video_frames), timesteps, context)
    return rearrange(out, "b c f h w -> (b f) c h w")


@torch.no_grad()
def as_diffusers(model: Any, x: Any, timesteps: Any, context: Any, num_video_frames: int) -> torch.Tensor:
    out = model(rearrange(x, "(b f) c h w -> b c f h w", f=num_video_frames), timesteps, context).sample
    return rearrange(out, "b c f h w -> (b f) c h w")


@pytest.mark.parametrize("frames", [1, 5, 16])
@pytest.mark.parametrize("videos", [1, 2])
@torch.no_grad()
def test_unet_equals_modelscope_and_diffusers(
    videos: int, frames: int, unet: Any, modelscope: Any, diffusers: Any
) -> None:
    given = inputs(videos, frames)
    ours = unet(**given)
    assert relative_error(ours, as_modelscope(modelscope, **given)) <= BOUND
    assert relative_error(ours, as_diffusers(diffusers, **given)) <= BOUND


@pytest.mark.parametrize("size", [(18, 28), (7, 5)])
@torch.no_grad()
def test_unet_equals_diffusers_at_sizes_that_8_does_not_divide(
    size: tuple[int, int], unet: Any, diffusers: Any
) -> None:
    given = inputs(2, 3, size)
    assert relative_error(unet(**given), as_diffusers(diffusers, **given)) <= BOUND


def test_every_normalisation_has_the_epsilon_of_modelscopes(unet: Any, modelscope: Any) -> None:
    """Activations near one hardly show it: 1e-5 for 1e-6 stays within the bound above."""
    ours, theirs = (
        {name: module.eps for name, module in model.named_modules() if hasattr(module, "eps")}
        for model in (unet, modelscope)
    )
    assert ours == theirs and set(ours.values()) == {1e-5, 1e-6}


@torch.no_grad()
def test_fractional_timesteps_equal_modelscope(unet: Any, modelscope: Any) -> None:
    given = inputs(2, 3) | {"timesteps": torch.tensor([0.4, 612.75])}
    assert relative_error(unet(**given), as_modelscope(modelscope, **given)) <= BOUND


@torch.no_grad()
def test_the_plain_attention_equals_the_fused_one(unet: Any) -> None:
    other = UNet3D(TINY, attention=plain_attention).eval()
    other.load_state_dict(unet.state_dict())
    given = inputs(2, 3)
    assert relative_error(other(**given), unet(**given)) <= BOUND


def test_diffusers_names_map_one_to_one_at_full_size_and_back() -> None:
    config = UNet3DConfig.modelscope()
    ours = UNet3D(config, device="meta").state_dict()
    with torch.device("meta"):
        theirs = diffusers_unet(config).state_dict()
    mapped = original_to_diffusers(ours, config)
    assert {k: v.shape for k, v in mapped.items()} == {k: v.shape for k, v in theirs.items()}
    back = diffusers_to_original(theirs, config)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in ours.items()}


def test_the_map_to_diffusers_and_back_gives_the_same_bits(unet: Any) -> None:
    ours = unet.state_dict()
    back = diffusers_to_original(original_to_diffusers(ours, TINY), TINY)
    assert back.keys() == ours.keys() and all(torch.equal(back[k], ours[k]) for k in ours)


def test_a_key_of_another_network_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'down_blocks\.0\.motion_modules\.0\.norm\.weight' is no parameter"):
        diffusers_to_original({"down_blocks.0.motion_modules.0.norm.weight": torch.zeros(1)}, TINY)

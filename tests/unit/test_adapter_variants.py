"""The smaller adapters of the ablations: silent at first, trainable, as large as computed, and written as they are."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dv2_core.model import (
    Adapter,
    AdapterConfig,
    Reference,
    ReferenceAttentions,
    UNet3D,
    UNet3DConfig,
    blended_mask,
    read_adapter,
    reference_patches,
    save_adapter,
    subject_features,
)
from tests.oracles.public import SMALL, noise, randomise, relative_error

PAPER = AdapterConfig(unet=SMALL, encoder_channels=(8, 8, 16, 16), encoder_heads=2)
VARIANTS = {
    "heads": replace(PAPER, ref_head_dim=4),
    "shared": replace(PAPER, ref_sharing="width"),
    "no encoder": replace(PAPER, motion_encoder="none"),
    "t2i": replace(PAPER, motion_control="t2i_adapter"),
    "smallest": replace(PAPER, ref_sharing="width", motion_encoder="none", motion_control="t2i_adapter"),
}
FRAMES, SIZE = 3, (6, 8)
FULL = UNet3DConfig.modelscope()


@pytest.fixture(scope="module")
def unet() -> Any:
    return randomise(UNet3D(SMALL)).requires_grad_(False)


def boxes() -> Tensor:
    """[F, 1, 48, 64]: another box in every frame."""
    masks = torch.zeros(FRAMES, 1, 8 * SIZE[0], 8 * SIZE[1])
    for n in range(FRAMES):
        masks[n, 0, 5 + 4 * n : 21 + 4 * n, 3 + 5 * n : 30 + 5 * n] = 1.0
    return masks


def given() -> tuple[Tensor, Tensor, Tensor, int]:
    return noise(FRAMES, 4, *SIZE), torch.tensor([801.0]), noise(1, 5, 32, seed=2), FRAMES


def run(unet: Any, adapter: Any) -> Tensor:
    """The UNet with all that the adapter adds."""
    x, timesteps, context, frames = given()
    features = subject_features(unet, noise(1, 4, *SIZE, seed=3), torch.zeros(1), context)
    reference = Reference(adapter.ref, adapter.ref.keys_values(features), blended_mask(boxes(), 0.75))
    options = {"patches": reference_patches(), "dv2_reference": reference}
    control = adapter.motion(x, boxes(), timesteps, context, frames)
    return unet(x, timesteps, context, frames, control=control, transformer_options=options)


def fresh(config: AdapterConfig, unet: Any) -> Adapter:
    torch.manual_seed(0)
    adapter = Adapter(config)
    adapter.initialize_weights(unet)
    return adapter


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_an_untrained_variant_leaves_the_unet_bit_identical(variant: str, unet: Any) -> None:
    assert torch.equal(run(unet, fresh(VARIANTS[variant], unet)), unet(*given()))
    trained = randomise(Adapter(VARIANTS[variant]), seed=5)
    assert relative_error(run(unet, trained), unet(*given())) > 1e-2  # the comparison can fail


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_of_a_variant_has_a_gradient_by_the_third_step(variant: str, unet: Any) -> None:
    adapter = fresh(VARIANTS[variant], unet)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        run(unet, adapter).square().mean().backward()
        optimizer.step()
    assert [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_read_back_as_it_was_written(variant: str, tmp_path: Path) -> None:
    path, adapter = tmp_path / "a.safetensors", randomise(Adapter(VARIANTS[variant]), seed=5)
    assert isinstance(adapter, Adapter)
    save_adapter(adapter, path, torch.float32, "abc", {})
    config, _, weights = read_adapter(path)
    assert config == VARIANTS[variant]
    other = Adapter(config)
    other.load_file_state_dict(weights)
    assert all(torch.equal(other.state_dict()[k], v) for k, v in adapter.state_dict().items())
    with pytest.raises(ValueError, match="do not fit its own settings"):
        Adapter(replace(PAPER, ref_sharing="none" if "widths" in str(weights) else "width")).own_state_dict(weights)


def test_settings_of_a_file_from_before_the_variants_are_the_papers() -> None:
    settings = AdapterConfig().to_dict()
    for name in ("ref_head_dim", "ref_sharing", "motion_encoder", "motion_control"):
        del settings[name]
    adapter = Adapter(AdapterConfig.from_dict(settings), device="meta")
    assert (parameters(adapter.ref), parameters(adapter.motion)) == (99_123_200, 365_343_856)
    assert adapter.ref is not None and {site.heads for site in adapter.ref._sites.values()} == {5, 10, 20}
    assert {name.split(".")[1] for name in adapter.ref.state_dict()} == {"1", "2", "3", "4", "5", "6", "7", "8", "9",
                                                                        "10", "11"}  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value"), [("ref_sharing", "block"), ("motion_encoder", "3d"), ("motion_control", "lora")]
)
def test_a_variant_that_is_not_known_is_refused_by_name(setting: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is '{value}'; it must be one of"):
        AdapterConfig.from_dict({setting: value})


def test_shared_projections_at_full_size_are_one_module_per_width() -> None:
    shared = ReferenceAttentions(FULL, sharing="width", device="meta")
    assert parameters(shared) == 4 * (320**2 + 640**2 + 1280**2)
    assert len(shared.sites) == 32 and {name.split(".")[1] for name in shared.state_dict()} == {"320", "640", "1280"}


@torch.no_grad()
def test_shared_projections_equal_unshared_ones_of_the_same_weights(unet: Any) -> None:
    shared: Any = randomise(Adapter(VARIANTS["shared"]), seed=5)
    unshared = Adapter(PAPER)
    assert unshared.motion is not None and unshared.ref is not None
    unshared.motion.load_state_dict(shared.motion.state_dict())
    for site, module in unshared.ref._sites.items():
        module.load_state_dict(shared.ref._sites[site].state_dict())
    assert torch.equal(run(unet, shared), run(unet, unshared))


def test_the_t2i_adapter_at_full_size_has_the_parameters_of_its_convolutions() -> None:
    control = Adapter(AdapterConfig(motion_control="t2i_adapter"), device="meta").motion.controlnet  # type: ignore[union-attr]
    skips = [320] * 4 + [640] * 3 + [1280] * 5 + [1280]
    assert parameters(control) == 3 * (9 * 320 * 320 + 320) + sum(320 * c + c for c in skips)


@pytest.mark.parametrize("size", [(32, 56), (7, 5), (1, 1)])
def test_the_residuals_of_the_t2i_adapter_have_the_shapes_of_the_controlnets(size: tuple[int, int]) -> None:
    x, context = torch.empty(2, 4, *size, device="meta"), torch.empty(1, 77, 1024, device="meta")
    hint, times = torch.empty(2, 320, *size, device="meta"), torch.empty(1, device="meta")
    paper, small = (
        Adapter(AdapterConfig(components=("motion",), motion_control=kind), device="meta").motion.controlnet(  # type: ignore[union-attr]
            x, hint, times, context
        )
        for kind in ("controlnet", "t2i_adapter")
    )
    assert [r.shape for r in small["output"]] == [r.shape for r in paper["output"]] and len(small["output"]) == 12
    assert [r.shape for r in small["middle"]] == [r.shape for r in paper["middle"]]


@torch.no_grad()
def test_the_t2i_adapter_sees_the_boxes_alone() -> None:
    motion: Any = randomise(Adapter(VARIANTS["t2i"]), seed=5).motion
    x, timesteps, context, frames = given()
    one = motion(x, boxes(), timesteps, context, frames)
    other = motion(-x, boxes(), timesteps / 3, 2 * context, frames)
    moved = motion(x, boxes().flip(-1), timesteps, context, frames)
    for a, b, c in zip(one["output"], other["output"], moved["output"], strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_hint_of_another_size_is_refused_by_the_t2i_adapter() -> None:
    motion: Any = Adapter(VARIANTS["t2i"]).motion
    x, timesteps, context, _ = given()
    with pytest.raises(ValueError, match=r"hint is \(3, 7, 8\), the latent \(3, 6, 8\)"):
        motion.controlnet(x, noise(3, 32, 7, 8), timesteps, context)


@torch.no_grad()
def test_without_the_motion_encoder_the_hint_is_a_convolution_of_the_area_averaged_background() -> None:
    motion: Any = randomise(Adapter(VARIANTS["no encoder"]), seed=5).motion
    means = (1 - boxes()).unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).mean(dim=(-1, -3))  # [F, 1, 6, 8]
    expected = torch.nn.functional.conv2d(means, motion.encoder.out.weight, motion.encoder.out.bias, padding=1)
    assert relative_error(motion.encode(boxes(), FRAMES), expected) <= 1e-5
    assert all(not torch.equal(a, b) for a, b in pairwise(expected))


def test_without_the_motion_encoder_the_full_size_hint_has_one_convolution() -> None:
    encoder = Adapter(AdapterConfig(motion_encoder="none"), device="meta").motion.encoder  # type: ignore[union-attr]
    assert parameters(encoder) == 9 * 320 + 320
    hint = encoder(torch.empty(2, 1, 257, 449, device="meta"), 2)
    assert hint.shape == (2, 320, 33, 57)

"""Full-size counts, odd latent sizes, rows of videos, and what the UNet refuses."""

from typing import Any

import pytest
import torch

from dv2_core.model import ReferenceAttentions, UNet3D, UNet3DConfig
from tests.oracles.public import SMALL, noise, randomise, relative_error


@pytest.fixture(scope="module")
def unet() -> Any:
    return randomise(UNet3D(SMALL))


@pytest.fixture(scope="module")
def full_size() -> Any:
    return UNet3D(UNet3DConfig.modelscope(), device="meta")


def test_full_size_unet_has_the_published_number_of_keys_and_parameters(full_size: Any) -> None:
    assert len(full_size.state_dict()) == 1480
    assert sum(p.numel() for p in full_size.parameters()) == 1_411_233_860


def test_full_size_adapter_has_32_reference_attentions_with_four_matrices_each() -> None:
    attentions = ReferenceAttentions(UNet3DConfig.modelscope(), device="meta")
    assert len(attentions.sites) == 32
    numbers = {kind: sorted({n for k, n, _ in attentions.sites if k == kind}) for kind in ("input", "middle", "output")}
    assert numbers == {"input": [1, 2, 4, 5, 7, 8], "middle": [0], "output": list(range(3, 12))}
    widths = {1: 320, 4: 640, 7: 1280}
    names = {name: tuple(p.shape) for name, p in attentions.named_parameters()}
    assert len(names) == 32 * 4 and {name.rsplit(".", 1)[1] for name in names} == {"weight"}
    assert names["input_blocks.4.attn1.to_q.weight"] == (widths[4], widths[4])
    assert names["middle_block.1.attn2.to_out.weight"] == (1280, 1280)


@pytest.mark.parametrize("size", [(32, 56), (18, 28), (7, 5), (1, 1)])
def test_full_size_unet_takes_any_latent_size(size: tuple[int, int], full_size: Any) -> None:
    x = torch.empty(2 * 3, 4, *size, device="meta")
    context, timesteps = torch.empty(2, 77, 1024, device="meta"), torch.empty(2, device="meta")
    assert full_size(x, timesteps, context, num_video_frames=3).shape == x.shape


def test_config_lists_the_width_of_every_spatial_transformer_that_the_unet_has() -> None:
    from dv2_core.model.blocks import SpatialTransformer

    for config in (UNet3DConfig.modelscope(), UNet3DConfig.miniature(), SMALL):
        found = {}
        for name, module in UNet3D(config, device="meta").named_modules():
            if isinstance(module, SpatialTransformer):
                kind, number = name.split("_blocks.")[0].removesuffix("_block.1"), name.split(".")[1]
                found[kind, 0 if kind == "middle" else int(number)] = module.proj_in.out_features
        assert config.transformer_widths() == found


@torch.no_grad()
def test_two_videos_in_a_batch_equal_two_runs(unet: Any) -> None:
    x, context, timesteps = noise(2 * 3, 4, 8, 12), noise(2, 5, 32, seed=2), torch.tensor([20.0, 900.0])
    both = unet(x, timesteps, context, num_video_frames=3)
    for n in range(2):
        one = unet(x[3 * n : 3 * n + 3], timesteps[n : n + 1], context[n : n + 1], num_video_frames=3)
        assert relative_error(both[3 * n : 3 * n + 3], one) <= 1e-5


@torch.no_grad()
def test_text_and_timesteps_per_frame_equal_those_per_video(unet: Any) -> None:
    x, context, timesteps = noise(2 * 3, 4, 8, 12), noise(2, 5, 32, seed=2), torch.tensor([20.0, 900.0])
    per_video = unet(x, timesteps, context, num_video_frames=3)
    per_frame = unet(x, timesteps.repeat_interleave(3), context.repeat_interleave(3, dim=0), num_video_frames=3)
    assert relative_error(per_frame, per_video) <= 1e-5


@torch.no_grad()
def test_a_forward_leaves_its_inputs_as_they_were_and_repeats_to_the_bit(unet: Any) -> None:
    given = [noise(4, 4, 7, 5), torch.tensor([20.0, 900.0]), noise(2, 5, 32, seed=2)]
    kept = [t.clone() for t in given]
    first, second = unet(*given, num_video_frames=2), unet(*given, num_video_frames=2)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@torch.no_grad()
def test_a_freshly_initialised_unet_predicts_zero() -> None:
    torch.manual_seed(0)
    fresh = UNet3D(SMALL)
    fresh.initialize_weights()
    assert not fresh(noise(2, 4, 8, 8), torch.tensor([5.0]), noise(1, 5, 32), num_video_frames=2).any()


@pytest.mark.parametrize(
    ("rows", "frames", "texts", "times", "sentence"),
    [
        (5, 2, 2, 2, "5 latent frames are not a whole number of videos of 2 frames"),
        (4, 0, 2, 2, "4 latent frames are not a whole number of videos of 0 frames"),
        (4, 2, 3, 2, "3 rows of text do not fit 2 videos of 2 frames"),
        (4, 2, 2, 3, "3 timesteps do not fit 2 videos of 2 frames"),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_a_sentence(
    rows: int, frames: int, texts: int, times: int, sentence: str, unet: Any
) -> None:
    with pytest.raises(ValueError, match=sentence):
        unet(noise(rows, 4, 8, 8), torch.full((times,), 5.0), noise(texts, 5, 32), num_video_frames=frames)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"model_channels": 40}, "model_channels is 40"),
        ({"head_dim": 48}, "level 0 is 320 wide, which head_dim 48 does not divide"),
        (
            {"attention_levels": [0], "channel_mult": [2, 1], "model_channels": 96},
            "level 1 is 96 wide, which head_dim 64",
        ),
        ({"attention_levels": [0, 4]}, r"attention_levels is \(0, 4\); the levels are \(0, 1, 2, 3\)"),
        ({"heads": 8}, r"unknown UNet setting \['heads'\]"),
    ],
)
def test_impossible_sizes_are_refused_with_a_sentence(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        UNet3DConfig.from_dict(setting)

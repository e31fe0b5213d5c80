"""The motion module: its ControlNet against diffusers', its encoder across frames, its residuals in the UNet."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dv2_core.checkpoints import original_to_diffusers
from dv2_core.model import MotionModule, UNet3D, UNet3DConfig
from tests.oracles.public import SMALL, TINY, noise, randomise, relative_error

BOUND = 1e-5
ENCODER = (8, 8, 16, 32)


def motion_module(config: UNet3DConfig = SMALL) -> Any:
    return randomise(MotionModule(config, ENCODER, encoder_heads=2), seed=7)


@pytest.fixture(scope="module")
def unet() -> Any:
    return randomise(UNet3D(SMALL))


@pytest.fixture(scope="module")
def motion() -> Any:
    return motion_module()


def boxes(rows: int, size: tuple[int, int]) -> Tensor:
    """[rows, 1, 8h, 8w] for a latent size: a box that moves with the frame."""
    masks = torch.zeros(rows, 1, 8 * size[0], 8 * size[1])
    for n in range(rows):
        masks[n, 0, 2 + n : 20 + n, 3 + 2 * n : 25 + 2 * n] = 1.0
    return masks


def given(
    videos: int = 1, frames: int = 3, size: tuple[int, int] = (6, 8), config: UNet3DConfig = SMALL
) -> dict[str, Any]:
    return {
        "x": noise(videos * frames, config.in_channels, *size),
        "masks": boxes(videos * frames, size),
        "timesteps": torch.tensor([801.0, 37.0])[:videos],
        "context": noise(videos, 5, config.context_dim, seed=2),
        "num_video_frames": frames,
    }


def diffusers_controlnet(config: UNet3DConfig) -> Any:
    """A spatial ControlNet of the same sizes whose hint encoder passes on what it is given."""
    from diffusers import ControlNetModel

    levels = range(len(config.channel_mult))
    model = ControlNetModel(
        in_channels=config.in_channels,
        down_block_types=tuple(
            "CrossAttnDownBlock2D" if n in config.attention_levels else "DownBlock2D" for n in levels
        ),
        block_out_channels=tuple(config.width(level) for level in levels),
        layers_per_block=config.num_res_blocks,
        cross_attention_dim=config.context_dim,
        attention_head_dim=tuple(config.width(level) // config.head_dim for level in levels),  # the number of heads
        use_linear_projection=True,
        norm_num_groups=32,
        norm_eps=1e-5,
    )
    model.controlnet_cond_embedding = nn.Identity()  # type: ignore[assignment]
    return model


def controlnet_to_diffusers(weights: dict[str, Tensor], config: UNet3DConfig) -> dict[str, Tensor]:
    """The base's own key map serves, once its ControlNet-only modules are taken out and two indices moved back."""
    renamed: dict[str, Tensor] = {}
    encoder: dict[str, Tensor] = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] == "zero_convs":
            renamed[f"controlnet_down_blocks.{parts[1]}.{parts[3]}"] = value
        elif parts[0] == "middle_block_out":
            renamed[f"controlnet_mid_block.{parts[2]}"] = value
        else:
            encoder[key.replace(".0.op.", ".op.").replace("middle_block.2.", "middle_block.3.")] = value
    return renamed | original_to_diffusers(encoder, config)


@torch.no_grad()
def test_controlnet_equals_diffusers() -> None:
    ours = motion_module(TINY).controlnet
    theirs = diffusers_controlnet(TINY)
    theirs.load_state_dict(controlnet_to_diffusers(ours.state_dict(), TINY), strict=True)
    theirs.eval()
    x, context, hint = noise(6, 4, 16, 24), noise(2, 7, 1024, seed=2), noise(6, 32, 16, 24, seed=3)
    timesteps = torch.tensor([37.0, 801.0])
    out = ours(x, hint, timesteps, context)
    down, middle = theirs(
        x, timesteps.repeat_interleave(3), context.repeat_interleave(3, dim=0), controlnet_cond=hint, return_dict=False
    )
    assert len(out["output"]) == len(down) == 12 and len(out["middle"]) == 1
    for mine, other in zip((*out["output"], *out["middle"]), (*down, middle), strict=True):
        assert relative_error(mine, other) <= BOUND


@torch.no_grad()
def test_freshly_initialised_module_gives_all_zero_residuals_and_a_bit_identical_unet(unet: Any) -> None:
    torch.manual_seed(0)
    fresh = MotionModule(SMALL, ENCODER, encoder_heads=2)
    fresh.initialize_weights(unet)
    inputs = given()
    control = fresh(**inputs)
    assert not any(residual.any() for residuals in control.values() for residual in residuals)
    del inputs["masks"]
    assert torch.equal(unet(**inputs, control=control), unet(**inputs))


def test_initialisation_copies_the_base_encoder_and_nothing_else(unet: Any) -> None:
    fresh = MotionModule(SMALL, ENCODER, encoder_heads=2)
    fresh.initialize_weights(unet)
    weights, base = fresh.controlnet.state_dict(), unet.state_dict()
    copied = {k: v for k, v in weights.items() if not k.startswith(("zero_convs", "middle_block_out"))}
    for key, value in copied.items():
        source = key.replace(".0.op.", ".op.").replace("middle_block.2.", "middle_block.3.")
        assert torch.equal(value, base[source]) and value.data_ptr() != base[source].data_ptr(), key
    zeros = {k: v for k, v in weights.items() if k not in copied}
    assert zeros and not any(v.any() for v in zeros.values())


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 1)])
@torch.no_grad()
def test_residuals_match_the_skips_of_the_unet_in_number_shape_and_order(
    size: tuple[int, int], unet: Any, motion: Any
) -> None:
    inputs = given(size=size)
    control = motion(**inputs)
    expected = [residual.clone() for residual in control["output"]]
    del inputs["masks"]
    added: list[Tensor] = []

    def skips(rows: list[Tensor]) -> dict[str, Any]:
        def record(h: Tensor, skip: Tensor, options: Any) -> tuple[Tensor, Tensor]:
            rows.append(skip)
            return h, skip

        return {"patches": {"output_block_patch": [record]}}

    plain: list[Tensor] = []
    unet(**inputs, transformer_options=skips(plain))
    unet(**inputs, control={"output": control["output"]}, transformer_options=skips(added))
    assert control["output"] == []  # consumed, as ComfyUI does
    assert len(expected) == len(plain) == len(added)
    for before, after, residual in zip(plain, added, reversed(expected), strict=True):
        assert torch.equal(after, before + residual)


@torch.no_grad()
def test_full_size_module_has_thirteen_residuals_of_the_published_shapes() -> None:
    full = MotionModule(UNet3DConfig.modelscope(), device="meta")
    x, context = torch.empty(4, 4, 32, 56, device="meta"), torch.empty(2, 77, 1024, device="meta")
    control = full(x, torch.empty(4, 1, 256, 448, device="meta"), torch.empty(2, device="meta"), context, 2)
    level = {n: (320 * min(2**n, 4), 32 >> n, 56 >> n) for n in range(4)}  # C, h, w
    downsampled = [(level[n][0], *level[n + 1][1:]) for n in range(3)]
    expected = [level[0]] * 3
    for n in range(1, 4):
        expected += [downsampled[n - 1], level[n], level[n]]
    assert [tuple(r.shape[1:]) for r in control["output"]] == expected
    assert [tuple(r.shape[1:]) for r in control["middle"]] == [level[3]]
    assert sum(p.numel() for p in full.controlnet.parameters()) == 363_141_760


@torch.no_grad()
def test_changing_the_box_of_one_frame_changes_the_hints_of_the_other_frames(motion: Any) -> None:
    masks = boxes(4, (6, 8))
    before = motion.encode(masks, 4)
    masks[2] = masks[2].flip(-1)
    after = motion.encode(masks, 4)
    for frame in range(4):
        assert relative_error(after[frame], before[frame]) > 1e-3


@torch.no_grad()
def test_the_boxes_of_one_video_do_not_reach_the_hints_of_another(motion: Any) -> None:
    masks = boxes(6, (6, 8))
    both = motion.encode(masks, 3)
    for rows in (slice(0, 3), slice(3, 6)):
        assert relative_error(both[rows], motion.encode(masks[rows], 3)) <= BOUND
    masks[:3] = 0.0
    assert torch.equal(motion.encode(masks, 3)[3:], both[3:])


@torch.no_grad()
def test_the_encoder_sees_the_background_as_one_and_the_box_as_zero(motion: Any) -> None:
    masks = boxes(2, (6, 8))
    assert torch.equal(motion.encode(masks, 2), motion.encoder(1.0 - masks, 2))


@pytest.mark.parametrize("size", [(32, 56), (18, 28), (7, 5), (1, 1)])
def test_the_hint_of_masks_eight_times_the_latent_has_the_latents_size(size: tuple[int, int]) -> None:
    encoder = MotionModule(SMALL, ENCODER, encoder_heads=2, device="meta")
    hint = encoder.encode(torch.empty(2, 1, 8 * size[0], 8 * size[1], device="meta"), 2)
    assert hint.shape == (2, SMALL.model_channels, *size)


@pytest.mark.parametrize("pixels", [(257, 449), (250, 442), (36, 60)])
def test_the_hint_of_masks_that_8_does_not_divide_rounds_up(pixels: tuple[int, int]) -> None:
    encoder = MotionModule(SMALL, ENCODER, encoder_heads=2, device="meta")
    hint = encoder.encode(torch.empty(2, 1, *pixels, device="meta"), 2)
    assert hint.shape[2:] == tuple(-(-side // 8) for side in pixels)


def test_masks_that_do_not_fit_the_latent_are_refused_with_a_sentence(motion: Any) -> None:
    inputs = given(size=(6, 8)) | {"masks": torch.zeros(3, 1, 52, 64)}
    with pytest.raises(ValueError, match=r"hint is \(3, 7, 8\), the latent \(3, 6, 8\)"):
        motion(**inputs)


@torch.no_grad()
def test_two_videos_in_a_batch_equal_two_runs(motion: Any) -> None:
    inputs = given(videos=2)
    both = motion(**inputs)
    for n in range(2):
        rows = slice(3 * n, 3 * n + 3)
        one = motion(inputs["x"][rows], inputs["masks"][rows], inputs["timesteps"][n : n + 1],
                     inputs["context"][n : n + 1], 3)  # fmt: skip
        for name in ("output", "middle"):
            for batched, single in zip(both[name], one[name], strict=True):
                assert relative_error(batched[rows], single) <= BOUND


@torch.no_grad()
def test_the_spatial_controlnet_treats_frames_independently(motion: Any) -> None:
    """Only the encoder looks across frames (paper, section 4.2)."""
    x, hint, context, t = noise(3, 4, 6, 8), noise(3, 32, 6, 8, seed=3), noise(1, 5, 32), torch.tensor([5.0])
    before = motion.controlnet(x, hint, t, context)["output"]
    x[0], hint[0] = 0.0, 0.0
    after = motion.controlnet(x, hint, t, context)["output"]
    for a, b in zip(before, after, strict=True):
        assert not torch.equal(a[0], b[0]) and relative_error(b[1:], a[1:]) <= BOUND


@torch.no_grad()
def test_control_of_another_dtype_does_not_change_the_dtype_of_the_unet() -> None:
    half = randomise(UNet3D(SMALL)).bfloat16()
    inputs = {k: v.bfloat16() if isinstance(v, Tensor) else v for k, v in given().items() if k != "masks"}
    control = {"output": [torch.zeros(3, 32, 6, 8), None, None, None]}
    assert half(**inputs, control=control).dtype == torch.bfloat16


@torch.no_grad()
def test_a_hint_of_another_dtype_does_not_change_the_dtype_of_the_residuals() -> None:
    half = motion_module().controlnet.bfloat16()
    x, context, t = noise(3, 4, 6, 8).bfloat16(), noise(1, 5, 32).bfloat16(), torch.tensor([5.0])
    control = half(x, noise(3, 32, 6, 8, seed=3), t, context)
    assert {r.dtype for residuals in control.values() for r in residuals} == {torch.bfloat16}


def test_the_first_gradient_reaches_every_zero_convolution_and_the_second_step_the_encoder(unet: Any) -> None:
    torch.manual_seed(0)
    fresh = MotionModule(SMALL, ENCODER, encoder_heads=2)
    fresh.initialize_weights(unet)
    unet.requires_grad_(False)
    inputs = given()

    def gradients() -> dict[str, bool]:
        """Whether each parameter receives a gradient."""
        fresh.zero_grad(set_to_none=True)
        rest = {k: v for k, v in inputs.items() if k != "masks"}
        unet(**rest, control=fresh(**inputs)).square().mean().backward()
        return {k: p.grad is not None and bool(p.grad.any()) for k, p in fresh.named_parameters()}

    first = gradients()
    zero_convs = {k for k in first if "zero_convs" in k or "middle_block_out" in k}
    assert {k for k, reached in first.items() if reached} == zero_convs
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if name in zero_convs:
                parameter.sub_(0.1 * parameter.grad)  # type: ignore[operator]
    second = gradients()
    assert second["encoder.out.weight"] and all(reached for k, reached in second.items() if k.startswith("controlnet"))
    assert not second["encoder.conv.0.weight"]  # behind the encoder's own zero convolution until its first step

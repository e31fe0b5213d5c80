"""Masked reference attention (paper, sections 4.1 and 4.3) against an einsum reference without any patches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, floor
from typing import Any

import pytest
import torch
from torch import Tensor

from dv2_core.model import (
    Reference,
    ReferenceAttentions,
    ReferencePatch,
    UNet3D,
    blended_mask,
    reference_patches,
    subject_features,
)
from dv2_core.model.blocks import SpatialTransformer
from tests.oracles.public import SMALL, noise, randomise, relative_error

FRAMES, SIZE, PIXELS = 3, (6, 8), (48, 64)
BOUND = 1e-5


@pytest.fixture(scope="module")
def unet() -> Any:
    return randomise(UNet3D(SMALL))


@pytest.fixture(scope="module")
def attentions() -> Any:
    return randomise(ReferenceAttentions(SMALL), seed=5)


def boxes(videos: int = 1, frames: int = FRAMES, size: tuple[int, int] = PIXELS) -> Tensor:
    """[B * F, 1, H, W]: a box that moves by a few pixels per frame, so that its edges fall between latent cells."""
    masks = torch.zeros(videos * frames, 1, *size)
    for n in range(videos * frames):
        masks[n, 0, 5 + 4 * n : 21 + 4 * n, 3 + 5 * n : 30 + 5 * n] = 1.0
    return masks


def given(videos: int = 1, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {
        "x": noise(videos * FRAMES, 4, *size),
        "timesteps": torch.tensor([801.0, 37.0])[:videos],
        "context": noise(videos, 5, 32, seed=2),
        "num_video_frames": FRAMES,
    }


def subject(unet: Any, videos: int = 1) -> dict[Any, Tensor]:
    """Features of ``videos`` subjects whose canvas has another shape than the video."""
    latent, context = noise(videos, 4, 4, 6, seed=3), noise(videos, 5, 32, seed=2)
    return subject_features(unet, latent, torch.zeros(videos), context)


@torch.no_grad()
def run(unet: Any, reference: Reference | None, **inputs: Any) -> Tensor:
    return unet(**inputs, transformer_options={"patches": reference_patches(), "dv2_reference": reference})


@contextmanager
def hooked(unet: Any, hook: Callable[[tuple[str, int, str], Tensor, tuple[int, int]], Tensor]) -> Iterator[None]:
    """``hook(site, output, (height, width))`` after every spatial attn1 and attn2, through torch's own module hooks."""
    handles = []
    for path, module in unet.named_modules():
        if not isinstance(module, SpatialTransformer):
            continue
        kind, number = path.split("_")[0], 0 if path.startswith("middle") else int(path.split(".")[1])
        size: list[tuple[int, int]] = []
        handles.append(module.register_forward_pre_hook(lambda m, args, size=size: size.append(args[0].shape[2:])))
        for name in ("attn1", "attn2"):
            site = (kind, number, name)
            handles.append(
                module.transformer_blocks[0]
                .get_submodule(name)
                .register_forward_hook(lambda m, a, out, site=site, size=size: hook(site, out, tuple(size[-1])))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def area_average(mask: Tensor, height: int, width: int) -> Tensor:
    """[H, W] -> [height, width]: the mean of all pixels that a cell touches."""
    out = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            rows = slice(floor(i * mask.shape[0] / height), ceil((i + 1) * mask.shape[0] / height))
            columns = slice(floor(j * mask.shape[1] / width), ceil((j + 1) * mask.shape[1] / width))
            out[i, j] = mask[rows, columns].mean()
    return out


def einsum_reference_attention(module: Any, z: Tensor, features: Tensor, head_dim: int) -> Tensor:
    """Attention(Z' W_Q, Z'_s W_K, Z'_s W_V) W_O. z [B, F, N, C], features [B, h, w, C] -> [B, F, N, C]."""
    features = features.flatten(1, 2)

    def heads(t: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("...c,dc->...d", t, weight).unflatten(-1, (-1, head_dim))

    q, k, v = (
        heads(z, module.to_q.weight),
        heads(features, module.to_k.weight),
        heads(features, module.to_v.weight),
    )
    weights = (torch.einsum("bfnhd,bshd->bfhns", q, k) / head_dim**0.5).softmax(dim=-1)
    return torch.einsum("dc,bfnc->bfnd", module.to_out.weight, torch.einsum("bfhns,bshd->bfnhd", weights, v).flatten(3))


@torch.no_grad()
def einsum_run(
    unet: Any, attentions: Any, features: Any, masks: Tensor, lambda_m: float, head_dim: int = SMALL.head_dim,
    **inputs: Any,
) -> Tensor:  # fmt: skip
    videos = features["middle", 0, "attn1"].shape[0]

    def add(site: tuple[str, int, str], z: Tensor, size: tuple[int, int]) -> Tensor:
        kind, number, attn = site
        block = "middle_block.1" if kind == "middle" else f"{kind}_blocks.{number}"
        module = attentions.get_submodule(f"{block}.{attn}")
        small = torch.stack([area_average(mask, *size) for mask in masks[:, 0]])  # [B * F, h, w]
        blended = small + lambda_m * (1 - small)
        grouped = z.unflatten(0, (videos, -1))  # [B, F, N, C]
        residual = einsum_reference_attention(module, grouped, features[site], head_dim)
        return (grouped + blended.reshape(videos, -1, size[0] * size[1], 1) * residual).flatten(0, 1)

    with hooked(unet, add):
        return unet(**inputs)


@pytest.mark.parametrize("lambda_m", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("videos", [1, 2])
@torch.no_grad()
def test_masked_reference_attention_equals_the_einsum_reference(
    videos: int, lambda_m: float, unet: Any, attentions: Any
) -> None:
    features, masks = subject(unet, videos), boxes(videos)
    reference = Reference(attentions, attentions.keys_values(features), blended_mask(masks, lambda_m))
    expected = einsum_run(unet, attentions, features, masks, lambda_m, **given(videos))
    assert relative_error(run(unet, reference, **given(videos)), expected) <= BOUND
    assert relative_error(run(unet, None, **given(videos)), expected) > 1e-2  # the comparison can fail


@pytest.mark.parametrize("head_dim", [4, 32])
@torch.no_grad()
def test_heads_of_another_width_than_the_bases_equal_the_einsum_reference(head_dim: int, unet: Any) -> None:
    attentions: Any = randomise(ReferenceAttentions(SMALL, head_dim), seed=5)
    features, masks = subject(unet), boxes()
    reference = Reference(attentions, attentions.keys_values(features), blended_mask(masks, 0.75))
    expected = einsum_run(unet, attentions, features, masks, 0.75, head_dim, **given())
    assert relative_error(run(unet, reference, **given()), expected) <= BOUND
    of_the_base: Any = randomise(ReferenceAttentions(SMALL), seed=5)  # the same weights: only the heads differ
    reference = Reference(of_the_base, of_the_base.keys_values(features), blended_mask(masks, 0.75))
    assert relative_error(run(unet, reference, **given()), expected) > 1e-4


@torch.no_grad()
def test_masked_reference_attention_equals_the_einsum_reference_at_a_size_that_nothing_divides(
    unet: Any, attentions: Any
) -> None:
    features, masks = subject(unet), boxes(size=(61, 43))
    reference = Reference(attentions, attentions.keys_values(features), blended_mask(masks, 0.5))
    expected = einsum_run(unet, attentions, features, masks, 0.5, **given(size=(7, 5)))
    assert relative_error(run(unet, reference, **given(size=(7, 5))), expected) <= BOUND


@torch.no_grad()
def test_zero_initialised_reference_attention_is_bit_identical_to_none(unet: Any) -> None:
    torch.manual_seed(0)
    fresh = ReferenceAttentions(SMALL)
    fresh.initialize_weights()
    reference = Reference(fresh, fresh.keys_values(subject(unet)), blended_mask(boxes(), 0.75))
    assert torch.equal(run(unet, reference, **given()), unet(**given()))
    for name, parameter in fresh.named_parameters():
        assert bool(parameter.any()) != name.endswith("to_out.weight"), name


@torch.no_grad()
def test_lambda_m_of_one_is_bit_identical_to_unmasked_reference_attention(unet: Any, attentions: Any) -> None:
    keys_values = attentions.keys_values(subject(unet))
    masked = run(unet, Reference(attentions, keys_values, blended_mask(boxes(), 1.0)), **given())
    assert torch.equal(masked, run(unet, Reference(attentions, keys_values, None), **given()))


@torch.no_grad()
def test_an_all_one_mask_is_bit_identical_to_unmasked_reference_attention(unet: Any, attentions: Any) -> None:
    keys_values = attentions.keys_values(subject(unet))
    ones = blended_mask(torch.ones_like(boxes()), 0.25)
    masked = run(unet, Reference(attentions, keys_values, ones), **given())
    assert torch.equal(masked, run(unet, Reference(attentions, keys_values, None), **given()))


@torch.no_grad()
def test_an_all_zero_mask_with_lambda_m_of_zero_is_bit_identical_to_no_reference_attention(
    unet: Any, attentions: Any
) -> None:
    zeros = blended_mask(torch.zeros_like(boxes()), 0.0)
    reference = Reference(attentions, attentions.keys_values(subject(unet)), zeros)
    assert torch.equal(run(unet, reference, **given()), unet(**given()))


@torch.no_grad()
def test_a_strength_of_zero_is_bit_identical_to_no_reference_attention(unet: Any, attentions: Any) -> None:
    reference = Reference(attentions, attentions.keys_values(subject(unet)), 0.0 * blended_mask(boxes(), 0.75))
    assert torch.equal(run(unet, reference, **given()), unet(**given()))


@torch.no_grad()
def test_two_videos_with_two_subjects_in_a_batch_equal_two_runs(unet: Any, attentions: Any) -> None:
    features, masks, inputs = subject(unet, 2), boxes(2), given(2)
    both = run(unet, Reference(attentions, attentions.keys_values(features), blended_mask(masks, 0.5)), **inputs)
    for n in range(2):
        rows = slice(n * FRAMES, (n + 1) * FRAMES)
        own = {site: z[n : n + 1] for site, z in features.items()}
        reference = Reference(attentions, attentions.keys_values(own), blended_mask(masks[rows], 0.5))
        one = run(unet, reference, x=inputs["x"][rows], timesteps=inputs["timesteps"][n : n + 1],
                  context=inputs["context"][n : n + 1], num_video_frames=FRAMES)  # fmt: skip
        assert relative_error(both[rows], one) <= BOUND


@torch.no_grad()
def test_split_conditional_and_unconditional_passes_equal_the_batched_one(unet: Any, attentions: Any) -> None:
    """As a sampler does it: the same latent under two texts, each with the subject's features under that text."""
    x, texts, t = noise(FRAMES, 4, *SIZE), noise(2, 5, 32, seed=2), torch.tensor([500.0])
    latent, weight = noise(1, 4, 4, 6, seed=3), blended_mask(boxes(), 0.75)
    split = []
    for n in range(2):
        features = subject_features(unet, latent, torch.zeros(1), texts[n : n + 1])
        reference = Reference(attentions, attentions.keys_values(features), weight)
        split.append(run(unet, reference, x=x, timesteps=t, context=texts[n : n + 1], num_video_frames=FRAMES))
    features = subject_features(unet, latent.expand(2, -1, -1, -1), torch.zeros(2), texts)
    reference = Reference(attentions, attentions.keys_values(features), torch.cat([weight, weight]))
    batched = run(unet, reference, x=torch.cat([x, x]), timesteps=t.expand(2), context=texts, num_video_frames=FRAMES)
    assert relative_error(batched, torch.cat(split)) <= BOUND


@torch.no_grad()
def test_a_repeated_run_is_identical(unet: Any, attentions: Any) -> None:
    reference = Reference(attentions, attentions.keys_values(subject(unet)), blended_mask(boxes(), 0.75))
    assert torch.equal(run(unet, reference, **given()), run(unet, reference, **given()))


@torch.no_grad()
def test_two_subjects_under_two_keys_add_up_after_one_another(unet: Any, attentions: Any) -> None:
    keys_values = attentions.keys_values(subject(unet))
    z, extra = noise(FRAMES, 48, 32), {"block": ("input", 1), "activations_shape": [FRAMES, 32, *SIZE]}
    extra |= {"a": Reference(attentions, keys_values, None), "b": Reference(attentions, keys_values, boxes())}
    first = ReferencePatch("attn1", "a")(z, extra)
    residual = attentions.residual(("input", 1, "attn1"), first, keys_values, None, {})
    expected = first + extra["b"].weight_at(*SIZE, residual.dtype) * residual
    assert relative_error(ReferencePatch("attn1", "b")(first, extra), expected) <= 1e-6


@torch.no_grad()
def test_lambda_m_of_zero_leaves_features_outside_the_box_untouched(unet: Any, attentions: Any) -> None:
    z, masks = noise(FRAMES, 48, 32), boxes()
    extra = {
        "block": ("input", 1),
        "activations_shape": [FRAMES, 32, *SIZE],
        "dv2_reference": Reference(attentions, attentions.keys_values(subject(unet)), blended_mask(masks, 0.0)),
    }
    changed = (ReferencePatch("attn1")(z, extra) != z).any(dim=-1).unflatten(1, SIZE)  # [F, h, w]
    touched = masks[:, 0].unflatten(1, (SIZE[0], 8)).unflatten(3, (SIZE[1], 8)).amax(dim=(2, 4)) > 0
    assert torch.equal(changed, touched) and changed.any() and not changed.all()


def test_no_box_is_so_thin_that_it_vanishes_at_the_coarsest_level(attentions: Any) -> None:
    masks = torch.zeros(1, 1, 256, 448)
    masks[..., 100, 201] = 1.0
    reference = Reference(attentions, {}, masks)
    for size in ((32, 56), (16, 28), (8, 14), (4, 7)):
        small = reference.weight_at(*size, torch.float32)
        assert small is not None and (small > 0).sum() == 1


@torch.no_grad()
def test_subject_features_equal_what_a_hooked_forward_records(unet: Any) -> None:
    latent, context, t = noise(2, 4, 4, 6, seed=3), noise(2, 5, 32, seed=2), torch.tensor([0.0, 400.0])
    recorded: dict[Any, Tensor] = {}

    def record(site: Any, out: Tensor, size: tuple[int, int]) -> Tensor:
        recorded[site] = out
        return out

    with hooked(unet, record):
        unet(latent, t, context, num_video_frames=1)
    features = subject_features(unet, latent, t, context)
    assert features.keys() == recorded.keys()
    assert all(torch.equal(features[site].flatten(1, 2), recorded[site]) for site in recorded)


def test_subject_features_has_one_entry_for_every_reference_attention(unet: Any, attentions: Any) -> None:
    assert tuple(subject(unet)) == attentions.sites


@torch.no_grad()
def test_subject_features_ignore_patches_and_replacements_of_the_video(unet: Any) -> None:
    latent, context = noise(1, 4, 4, 6, seed=3), noise(1, 5, 32, seed=2)
    options = {
        "patches": {
            "attn1_output_patch": [lambda z, extra: z + 1.0],
            "emb_patch": [lambda emb, width, extra: emb * 2.0],
        },
        "patches_replace": {"attn1": {("input", 1): lambda q, k, v, extra: v}},
    }
    kept = {name: dict(entry) for name, entry in options.items()}
    patched = subject_features(unet, latent, torch.zeros(1), context, options=options)
    plain = subject_features(unet, latent, torch.zeros(1), context)
    assert all(torch.equal(patched[site], plain[site]) for site in plain)
    assert options == kept


def test_the_first_gradient_reaches_every_zero_initialised_projection_and_not_the_frozen_base(unet: Any) -> None:
    torch.manual_seed(0)
    fresh = ReferenceAttentions(SMALL)
    fresh.initialize_weights()
    unet.requires_grad_(False)
    reference = Reference(fresh, fresh.keys_values(subject(unet)), blended_mask(boxes(), 0.75))
    options = {"patches": reference_patches(), "dv2_reference": reference}
    unet(**given(), transformer_options=options).square().mean().backward()
    for name, parameter in fresh.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()) == name.endswith("to_out.weight"), name
    assert all(parameter.grad is None for parameter in unet.parameters())

"""Box positions and hidden states in reference attention: places by hand, and who may look at them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dv2_core.model import (
    Adapter,
    AdapterConfig,
    Reference,
    UNet3D,
    blended_mask,
    read_adapter,
    reference_patches,
    save_adapter,
    subject_features,
)
from dv2_core.model.position import box_frames, places, subject_frame
from tests.oracles.public import SMALL, noise, randomise

PAPER = AdapterConfig(unet=SMALL, encoder_channels=(8, 8, 16, 16), encoder_heads=2)
PLACED = replace(PAPER, ref_features="hidden", ref_position="box")
FRAMES, SIZE = 3, (6, 8)


def mask(x0: int, y0: int, x1: int, y1: int, height: int = 48, width: int = 64) -> Tensor:
    masks = torch.zeros(1, 1, height, width)
    masks[..., y0:y1, x0:x1] = 1.0
    return masks


def test_a_boxs_frame_has_its_centre_and_one_over_its_longest_side() -> None:
    torch.testing.assert_close(box_frames(mask(16, 12, 48, 28)), torch.tensor([[0.5, 20 / 48, 64 / 32, 48 / 32]]))


def test_an_empty_mask_has_no_frame_and_no_places() -> None:
    frames = box_frames(torch.zeros(1, 1, 48, 64))
    assert frames.tolist() == [[0.0] * 4]
    assert not places(frames, 3, 4).any()


def test_the_same_part_of_the_subject_has_the_same_place_in_the_video_and_on_its_canvas() -> None:
    """A box as large as the subject's extent on a canvas of 100, moved by one token of 10 pixels."""
    on_canvas = places(subject_frame(10, 10), 10, 10).reshape(10, 10, 16)
    in_video = places(box_frames(mask(9, 19, 91, 101, 120, 100)), 12, 10).reshape(12, 10, 16)
    torch.testing.assert_close(in_video[1:11], on_canvas, atol=2e-5, rtol=0)


def test_a_place_is_the_sine_and_cosine_of_four_octaves_along_both_axes() -> None:
    row = places(torch.tensor([[0.5, 0.5, 1.0, 1.0]]), 2, 4)[0, 1]  # the token at x = 3/8, y = 1/4
    octaves = torch.pi * torch.tensor([1.0, 2.0, 4.0, 8.0])
    expected = [part for at in (3 / 8 - 0.5, 1 / 4 - 0.5) for part in ((at * octaves).sin(), (at * octaves).cos())]
    torch.testing.assert_close(row, torch.cat(expected))


@pytest.fixture(scope="module")
def unet() -> Any:
    return randomise(UNet3D(SMALL)).requires_grad_(False)


def run(unet: Any, adapter: Any, frames: Tensor | None) -> Tensor:
    masks = torch.cat([mask(4, 5 * n, 30, 5 * n + 26) for n in range(FRAMES)])
    context = noise(1, 5, 32, seed=2)
    kind = adapter.config.ref_features
    features = subject_features(unet, noise(1, 4, *SIZE, seed=3), torch.zeros(1), context, kind)
    reference = Reference(adapter.ref, adapter.ref.keys_values(features), blended_mask(masks, 0.75), frames)
    options = {"patches": reference_patches(), "dv2_reference": reference}
    with torch.no_grad():
        return unet(noise(FRAMES, 4, *SIZE), torch.tensor([801.0]), context, FRAMES, transformer_options=options)


def test_boxes_move_what_an_adapter_with_box_positions_attends_to(unet: Any) -> None:
    adapter = randomise(Adapter(PLACED))
    one, other = (box_frames(mask(x, 8, x + 24, 40)).expand(FRAMES, -1) for x in (0, 40))
    assert not torch.equal(run(unet, adapter, one), run(unet, adapter, other))


def test_without_box_positions_the_frames_change_nothing(unet: Any) -> None:
    adapter = randomise(Adapter(PAPER))
    frames = box_frames(mask(0, 8, 24, 40)).expand(FRAMES, -1)
    assert torch.equal(run(unet, adapter, frames), run(unet, adapter, None))


def test_empty_frames_equal_no_frames(unet: Any) -> None:
    adapter = randomise(Adapter(PLACED))
    assert torch.equal(run(unet, adapter, torch.zeros(FRAMES, 4)), run(unet, adapter, None))


def test_hidden_states_are_the_layers_output_plus_what_it_is_added_to(unet: Any) -> None:
    latent, context = noise(1, 4, *SIZE, seed=3), noise(1, 5, 32, seed=2)
    block = unet.input_blocks[1][1].transformer_blocks[0]
    before, after = [], []
    handles = [
        block.norm1.register_forward_pre_hook(lambda m, args: before.append(args[0])),
        block.attn1.register_forward_hook(lambda m, args, out: after.append(out)),
    ]
    hidden = subject_features(unet, latent, torch.zeros(1), context, "hidden")["input", 1, "attn1"]
    for handle in handles:
        handle.remove()
    assert torch.equal(hidden.flatten(1, 2), before[0] + after[0])


def test_a_new_adapter_with_both_choices_changes_nothing_and_reads_back(unet: Any, tmp_path: Path) -> None:
    adapter = Adapter(PLACED)
    adapter.initialize_weights(unet)
    context = noise(1, 5, 32, seed=2)
    with torch.no_grad():
        plain = unet(noise(FRAMES, 4, *SIZE), torch.tensor([801.0]), context, FRAMES)
    assert torch.equal(run(unet, adapter, box_frames(mask(0, 8, 24, 40)).expand(FRAMES, -1)), plain)
    save_adapter(adapter, tmp_path / "a.safetensors", torch.float32, "", {})
    settings, _, weights = read_adapter(tmp_path / "a.safetensors")
    assert settings == PLACED
    assert any("to_place" in name for name in weights)

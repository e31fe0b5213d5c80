"""Cutting the subject out and placing it on the blank canvas."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dv2_core.subject import extract_subject, place_on_canvas

RED = torch.tensor([0.9, 0.1, 0.1])


def disc(side: int = 128, radius: float = 40.0) -> torch.Tensor:
    """Antialiased coverage [side, side] of a disc in the middle."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    return (radius - torch.hypot(x - side / 2, y - side / 2) + 0.5).clamp(0, 1)


def picture(alpha: torch.Tensor, background: tuple[float, float, float]) -> torch.Tensor:
    """The red subject of this coverage in front of one colour, [H, W, 3]."""
    return RED * alpha[..., None] + torch.tensor(background) * (1 - alpha[..., None])


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    data = io.BytesIO()
    Image.fromarray((image.numpy() * 255).round().astype(np.uint8)).save(data, "JPEG", quality=quality)
    return torch.tensor(np.array(Image.open(data))).float() / 255


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum())


def test_an_alpha_channel_that_is_not_opaque_is_used_even_when_a_mask_is_given():
    alpha = disc()
    rgba = torch.cat([RED.expand(128, 128, 3), alpha[..., None]], dim=-1)
    rgb, found = extract_subject(rgba, mask=torch.ones(128, 128))
    assert torch.equal(found, alpha) and torch.equal(rgb, rgba[..., :3])


def test_an_opaque_alpha_channel_is_ignored_and_the_mask_used():
    mask = torch.zeros(128, 128)
    mask[30:60, 40:90] = 1
    rgba = torch.cat([picture(disc(), (0, 0, 1)), torch.ones(128, 128, 1)], dim=-1)
    assert torch.equal(extract_subject(rgba, mask)[1], mask)


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.2, 0.7, 0.3), (0.5, 0.5, 0.5)])
@pytest.mark.parametrize("quality", [None, 95, 75, 50])
def test_a_plain_background_is_keyed_away_through_jpeg_noise(background, quality):
    alpha = disc()
    image = picture(alpha, background)
    found = extract_subject(image if quality is None else jpeg(image, quality))[1]
    assert overlap(found, alpha) > (0.99 if quality is None else 0.95)
    corner = found[:16, :16]
    assert corner.eq(0).all()


def test_keyed_edges_lose_the_background_colour():
    alpha = disc()
    rgb, found = extract_subject(picture(alpha, (0.1, 0.9, 0.2)))
    assert (found - alpha).abs().max() < 0.3
    assert (rgb[found > 0.3] - RED).abs().max() < 0.25


def test_background_colour_inside_the_subject_stays_part_of_it():
    alpha = disc()
    hole = disc(radius=10.0)
    image = picture(alpha, (1, 1, 1)) * (1 - hole[..., None]) + hole[..., None]
    assert extract_subject(image)[1][60:68, 60:68].eq(1).all()


def test_a_subject_that_runs_out_of_the_picture_is_still_keyed():
    alpha = torch.zeros(100, 100)
    alpha[40:, 35:65] = 1
    assert overlap(extract_subject(picture(alpha, (1, 1, 1)))[1], alpha) > 0.98


def test_a_winding_background_is_followed_to_its_end():
    wall = torch.zeros(96, 96)
    for i in range(8, 88, 16):
        wall[i : i + 4, 8:88] = 1
        x = 8 if i % 32 == 8 else 84
        wall[i : i + 16, x : x + 4] = 1
    assert overlap(extract_subject(picture(wall, (1, 1, 1)))[1], wall) > 0.9


@pytest.mark.parametrize(("width", "height"), [(64, 64), (448, 256), (33, 57)])
@pytest.mark.parametrize("shape", [(40, 40), (10, 50), (300, 90)])
def test_the_longest_side_is_82_percent_of_the_shorter_canvas_side_and_centred(width, height, shape):
    alpha = torch.zeros(320, 120)
    alpha[5 : 5 + shape[0], 7 : 7 + shape[1]] = 1
    canvas, placed = place_on_canvas(RED.expand(320, 120, 3), alpha, width, height)
    assert canvas.shape == (height, width, 3) and placed.shape == (height, width)
    rows, columns = (placed > 0.5).any(1).nonzero(), (placed > 0.5).any(0).nonzero()
    size = (int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)
    longest = round(0.82 * min(width, height))
    assert max(size) == longest
    assert min(size) == max(1, round(longest * min(shape) / max(shape)))
    assert abs(int(rows[0]) - (height - 1 - int(rows[-1]))) <= 1
    assert abs(int(columns[0]) - (width - 1 - int(columns[-1]))) <= 1


def test_the_canvas_is_white_around_the_subject_and_holds_its_colour():
    canvas, alpha = place_on_canvas(RED.expand(128, 128, 3), disc(), 64, 64)
    assert canvas[alpha == 0].eq(1).all()
    assert (canvas[alpha > 0.999] - RED).abs().max() < 1e-3
    assert torch.allclose(canvas, picture(alpha, (1, 1, 1)), atol=2e-3)


def test_hidden_colours_do_not_bleed_into_the_edge_when_the_picture_is_made_smaller_or_larger():
    for side in (24, 64, 400):
        alpha = disc()
        green = torch.where(alpha[..., None] > 0, RED, torch.tensor([0.0, 1.0, 0.0]))
        red = RED.expand(128, 128, 3)
        assert torch.equal(place_on_canvas(green, alpha, side, side)[0], place_on_canvas(red, alpha, side, side)[0])


def test_faint_alpha_does_not_widen_the_crop():
    alpha = disc()
    dusty = torch.maximum(alpha, torch.full_like(alpha, 39 / 255) * (torch.arange(128) > 120))
    for a, b in zip(
        place_on_canvas(RED.expand(128, 128, 3), alpha, 64, 64),
        place_on_canvas(RED.expand(128, 128, 3), dusty, 64, 64),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_placing_is_deterministic_and_leaves_its_inputs_alone():
    rgb, alpha = RED.expand(128, 128, 3).clone(), disc()
    copies = rgb.clone(), alpha.clone()
    first, second = place_on_canvas(rgb, alpha, 64, 64), place_on_canvas(rgb, alpha, 64, 64)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(rgb, copies[0]) and torch.equal(alpha, copies[1])


def noise(side: int = 64) -> torch.Tensor:
    return torch.rand(side, side, 3, generator=torch.Generator().manual_seed(0))


def dot(side: int) -> torch.Tensor:
    mask = torch.zeros(64, 64)
    mask[30 : 30 + side, 30 : 30 + side] = 1
    return mask


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: extract_subject(torch.zeros(1, 1, 3)), ["1x1", "larger"]),
        (lambda: extract_subject(torch.zeros(1, 64, 3)), ["64x1", "larger"]),
        (lambda: extract_subject(torch.zeros(64, 64)), ["[64, 64]", "RGB or RGBA"]),
        (lambda: extract_subject(torch.zeros(1, 64, 64, 3)), ["[1, 64, 64, 3]", "one RGB"]),
        (lambda: extract_subject(torch.zeros(64, 64, 2)), ["[64, 64, 2]", "3 or 4"]),
        (lambda: extract_subject(torch.full((64, 64, 3), math.nan)), ["image", "NaN", "from 0 to 1"]),
        (lambda: extract_subject(noise() * 255), ["image", "255", "scale them"]),
        (lambda: extract_subject(noise(), torch.zeros(32, 64)), ["[32, 64]", "64 high", "same picture"]),
        (lambda: extract_subject(noise(), torch.zeros(1, 64, 64)), ["[1, 64, 64]", "64 wide"]),
        (lambda: extract_subject(noise(), torch.full((64, 64), math.nan)), ["mask", "NaN"]),
        (lambda: extract_subject(noise(), torch.zeros(64, 64)), ["64x64", "no foreground", "mask is empty"]),
        (lambda: extract_subject(torch.zeros(64, 64, 4)), ["no foreground", "alpha channel is empty"]),
        (lambda: extract_subject(torch.ones(64, 64, 3)), ["no foreground", "plain background", "mask"]),
        (lambda: extract_subject(noise()), ["not plain", "70%", "Connect a mask"]),
        (lambda: extract_subject(noise(), dot(1)), ["only 1x1", "at least 4"]),
        (lambda: extract_subject(noise(), dot(3)), ["only 3x3", "at least 4"]),
        (lambda: place_on_canvas(noise(), torch.zeros(64, 64), 64, 64), ["no foreground", "empty"]),
        (lambda: place_on_canvas(noise(), torch.ones(32, 64), 64, 64), ["[32, 64]", "[64, 64, 3]"]),
        (lambda: place_on_canvas(noise(), torch.ones(64, 64), 0, 64), ["0x64", "at least 1x1"]),
        (lambda: place_on_canvas(noise(), torch.ones(64, 64), 64, 64, fill=0), ["fill is 0", "above 0"]),
        (lambda: place_on_canvas(noise(), torch.ones(64, 64), 64, 64, fill=1.5), ["1.5", "above 1"]),
        (lambda: place_on_canvas(noise(), torch.full((64, 64), math.nan), 64, 64), ["mask", "NaN"]),
    ],
)
def test_pictures_without_a_usable_subject_are_refused_with_a_sentence(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value), str(error.value)
    assert str(error.value).endswith(".")

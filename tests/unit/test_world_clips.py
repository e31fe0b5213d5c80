"""Clips of the mini-world, on a tiny atlas of drawn shapes."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from dv2_core.world.atlas import Atlas, Sprite
from dv2_core.world.clips import BACKGROUNDS, DIRECTIONS, World, render_clip, tight_boxes
from dv2_core.world.colour import COLOURS, colour_word, hsv_to_rgb, rgb_to_hsv, rotate_hue
from dv2_core.world.text import EOS, UNKNOWN, WordTokenizer, vocabulary


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    """Eight shapes in two styles (filled and outlined), two concepts held out."""
    y, x = np.mgrid[:64, :64] - 31.5
    shapes = {
        "disc": x**2 + y**2 < 900,
        "box": np.maximum(abs(x), abs(y)) < 28,
        "diamond": abs(x) + abs(y) < 31,
        "bar": (abs(x) < 31) & (abs(y) < 9),
        "pole": (abs(y) < 31) & (abs(x) < 7),
        "cross": (abs(x) < 8) | (abs(y) < 8),
        "half disc": (x**2 + y**2 < 900) & (y < 0),
        "wedge": (x > y) & (x < 30) & (y > -30),
    }
    rgba, sprites = [], []
    for number, (name, inside) in enumerate(shapes.items()):
        for style, paint in (("filled", (220, 40, 40)), ("outlined", (40, 160, 220))):
            pixels = np.zeros((64, 64, 4), np.uint8)
            pixels[inside] = (*paint, 255)
            rgba.append(pixels)
            sprites.append(Sprite(f"{number:x}", name, style, "Apache-2.0", "test" if number >= 6 else "train"))
    return Atlas(np.stack(rgba), sprites)


def test_every_box_is_the_tight_rectangle_of_the_subject_alpha(atlas: Atlas):
    world = World(atlas)
    for index in range(100):
        clip = world.clip(index)
        for box, alpha, mask in zip(clip.boxes, clip.alpha, clip.masks, strict=True):
            rows, columns = alpha.any(1).nonzero().flatten(), alpha.any(0).nonzero().flatten()
            tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert (box * world.size).tolist() == [float(edge) for edge in tight]
            x0, y0, x1, y1 = (int(edge) for edge in tight)
            assert mask.sum() == (x1 - x0) * (y1 - y0) == mask[y0:y1, x0:x1].sum()


def test_pixels_outside_the_box_are_the_same_in_every_frame(atlas: Atlas):
    world = World(atlas)
    for index in range(20):
        clip = world.clip(index)
        outside = ~torch.nn.functional.max_pool2d(clip.masks, 5, 1, 2).bool().any(0)  # soft edges lie next to the box
        assert (clip.frames[:, :, outside] == clip.frames[:1, :, outside]).all()


def test_a_clip_depends_on_seed_split_and_index_alone(atlas: Atlas):
    one, two = World(atlas, seed=5), World(atlas, seed=5)
    for index in (0, 9_999_999, 17):  # any order
        first, again = one[index], two[index]
        for name, value in first.items():
            assert torch.equal(value, again[name]) if torch.is_tensor(value) else value == again[name]
    assert not torch.equal(World(atlas, seed=6)[3]["frames"], one[3]["frames"])
    assert not torch.equal(one[4]["frames"], one[3]["frames"])


def test_train_and_test_clips_share_no_concept(atlas: Atlas):
    seen = {split: {World(atlas, split)[index]["concept"] for index in range(150)} for split in ("train", "test")}
    assert seen["test"] == {"half disc", "wedge"}
    assert seen["train"] == {"disc", "box", "diamond", "bar", "pole", "cross"}


def test_clips_have_the_documented_shapes_ranges_and_labels(atlas: Atlas):
    clip = World(atlas, size=48, num_frames=5)[11]
    assert {name: tuple(value.shape) for name, value in clip.items() if torch.is_tensor(value)} == {
        "frames": (5, 3, 48, 48),
        "masks": (5, 48, 48),
        "boxes": (5, 4),
        "alpha": (5, 48, 48),
        "subject": (3, 48, 48),
        "subject_alpha": (48, 48),
    }
    assert 0 <= clip["frames"].min() and clip["frames"].max() <= 1
    assert clip["direction"] in DIRECTIONS and clip["background"] in BACKGROUNDS
    assert clip["colour"] in ("", *COLOURS)


def test_the_default_collate_function_batches_clips(atlas: Atlas):
    world = World(atlas)
    batch = default_collate([world[0], world[1]])
    assert batch["frames"].shape == (2, 8, 3, 64, 64)
    assert batch["caption"] == [world[0]["caption"], world[1]["caption"]]


def test_the_subject_image_fills_82_percent_of_a_white_square(atlas: Atlas):
    for index in range(20):
        clip = World(atlas).clip(index)
        x0, y0, x1, y1 = tight_boxes(clip.subject_alpha[None])[0]
        assert abs(max(x1 - x0, y1 - y0) - 0.82 * 64) <= 1
        assert (clip.subject[:, 0] == 1).all() and (clip.subject[:, :, 0] == 1).all()


def test_half_of_the_captions_name_the_colour_that_is_seen(atlas: Atlas):
    world = World(atlas)
    clips = [world.clip(index) for index in range(200)]
    named = [clip for clip in clips if clip.colour]
    assert 70 < len(named) < 130
    for clip in named:
        assert clip.caption.startswith(f"a {clip.colour} {clip.concept} ")
        rgba = torch.cat([clip.subject, clip.subject_alpha[None].float()]).numpy()
        assert colour_word(rgba) == clip.colour


def test_the_direction_word_agrees_with_the_boxes(atlas: Atlas):
    world = World(atlas)
    axes = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    for index in range(100):
        clip = world.clip(index)
        centres = (clip.boxes[:, :2] + clip.boxes[:, 2:]) / 2
        step = centres[-1] - centres[0]
        if clip.direction == "still":
            assert step.norm() < 6 / 64
        else:
            assert (step * torch.tensor(axes[clip.direction])).sum() >= step.abs().max() - 1e-6


def test_every_caption_word_is_in_the_vocabulary_and_every_caption_fits_16_tokens(atlas: Atlas):
    tokenizer = WordTokenizer(vocabulary(atlas))
    for split in ("train", "test"):
        for index in range(100):
            clip = World(atlas, split).clip(index)
            ids = tokenizer.encode(clip.caption)
            assert len(ids) == 16 and UNKNOWN not in ids and EOS in ids
            assert tokenizer.decode(ids) == clip.caption


def test_a_box_outside_the_frame_is_refused_with_its_numbers(atlas: Atlas):
    with pytest.raises(ValueError, match=r"\(40, 0, 70, 10\)"):
        render_clip(atlas.crop(0), np.array([[40, 0, 70, 10]]), torch.zeros(3, 64, 64))


def test_a_clip_beyond_the_length_raises_index_error(atlas: Atlas):
    with pytest.raises(IndexError, match="0..9"):
        World(atlas, length=10)[10]


def test_hsv_goes_there_and_back_and_a_full_turn_changes_nothing():
    rgb = np.random.default_rng(0).uniform(size=(3, 500)).astype(np.float32)
    assert np.allclose(hsv_to_rgb(*rgb_to_hsv(rgb)), rgb, atol=1e-5)
    rgba = np.concatenate([rgb, np.ones((1, 500), np.float32)])
    assert np.allclose(rotate_hue(rgba, 1.0), rgba, atol=1e-4)


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((1, 0, 0), "red"),
        ((1, 0.5, 0), "orange"),
        ((1, 0.95, 0), "yellow"),
        ((0, 0.7, 0.1), "green"),
        ((0, 0.9, 0.95), "cyan"),
        ((0.1, 0.2, 0.9), "blue"),
        ((0.55, 0.1, 0.9), "purple"),
        ((1, 0.3, 0.7), "pink"),
        ((0.05, 0.05, 0.05), "black"),
        ((0.5, 0.5, 0.5), "gray"),
        ((0.97, 0.97, 0.97), "white"),
    ],
)
def test_plain_colours_get_their_everyday_word(rgb, word):
    rgba = np.ones((4, 5, 5), np.float32)
    rgba[:3] = np.array(rgb, np.float32)[:, None, None]
    assert colour_word(rgba) == word


def test_words_beyond_the_token_length_are_cut_and_the_end_mark_stays():
    tokenizer = WordTokenizer.from_corpus(["a red ball"])
    assert tokenizer.encode("a red ball a red ball", max_length=5) == [1, *tokenizer.encode("a red ball")[1:4], 2]
    assert tokenizer.encode("a green ball")[2] == UNKNOWN

"""The sprite atlas: cropping, fitting, naming, splitting."""

import numpy as np
import pytest

from dv2_core.world.atlas import (
    Atlas,
    Sprite,
    drop_near_duplicates,
    fit_sprite,
    hexcode,
    normalise_hexcode,
    plain_name,
    split_concepts,
)


def disc(size: int, colour: tuple[int, int, int]) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    inside = (x - size / 2 + 0.5) ** 2 + (y - size / 2 + 0.5) ** 2 < (size / 2) ** 2
    return np.dstack([np.broadcast_to(np.array(colour, np.uint8), (size, size, 3)), inside.astype(np.uint8) * 255])


def test_a_fitted_sprite_touches_both_sides_of_its_longest_axis_and_is_centred_on_the_other():
    picture = np.zeros((200, 300, 4), np.uint8)
    picture[90:120, 20:220] = (10, 200, 30, 255)
    opaque = fit_sprite(picture)[..., 3] > 40
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    assert (columns[0], columns[-1]) == (0, 63)
    assert rows[0] == 63 - rows[-1]


def test_a_picture_without_opaque_pixels_is_refused():
    with pytest.raises(ValueError, match="no opaque pixel"):
        fit_sprite(np.zeros((8, 8, 4), np.uint8))


def test_names_lose_accents_punctuation_and_colour_words():
    assert plain_name("Piñata") == "pinata"
    assert plain_name("three o’clock") == "three oclock"
    assert plain_name("cloud: with rain") == "cloud with rain"
    assert plain_name("light blue heart") == "heart"


def test_hexcodes_ignore_case_and_the_variation_selector():
    assert hexcode("❤️") == normalise_hexcode("2764-FE0F") == "2764"


def test_a_recoloured_or_mirrored_picture_is_a_near_duplicate_and_another_shape_is_not():
    square = np.zeros((64, 64, 4), np.uint8)
    square[8:56, 8:40] = (120, 120, 120, 255)
    grey = (117, 117, 117)
    kept = drop_near_duplicates(
        {"disc": disc(64, grey), "blue disc": disc(64, (60, 140, 150)), "box": square, "mirrored": square[:, ::-1]}
    )
    assert kept == ["disc", "box"]


def test_the_split_is_seeded_and_keeps_a_face_with_its_animal():
    concepts = {f"{i:x}": f"thing {i}" for i in range(40)} | {"a1": "cat", "a2": "cat face"}
    held_out = split_concepts(concepts, test_concepts=10, seed=3)
    assert held_out == split_concepts(concepts, test_concepts=10, seed=3)
    assert held_out != split_concepts(concepts, test_concepts=10, seed=4)
    assert 10 <= len(held_out) <= 11
    assert all(
        len({"a1", "a2"} & split_concepts(concepts, test_concepts=10, seed=seed)) in (0, 2) for seed in range(20)
    )


def test_an_atlas_survives_saving_and_loading(tmp_path):
    sprites = [Sprite("1f600", "disc", "noto", "Apache-2.0", "train"), Sprite("1f601", "disc", "noto", "MIT", "test")]
    atlas = Atlas(np.stack([disc(64, (200, 30, 30)), disc(64, (30, 200, 30))]), sprites)
    atlas.save(tmp_path / "atlas.safetensors")
    loaded = Atlas.load(tmp_path / "atlas.safetensors")
    assert loaded.sprites == sprites
    assert np.array_equal(loaded.rgba, atlas.rgba)


def test_a_file_that_is_no_atlas_is_refused_with_a_sentence(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a sprite atlas"):
        Atlas.load(tmp_path / "x.safetensors")

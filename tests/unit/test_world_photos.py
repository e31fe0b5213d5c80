"""The atlas of photographs, from a made package."""

import io

import numpy as np
import pytest
from PIL import Image

from dv2_core.world.atlas import Atlas
from dv2_core.world.clips import World
from dv2_core.world.photos import build_photos, noun_of

STEM = "./usr/share/tuxpaint/stamps/"


def stamp(path: str, caption: str, colour=(200, 40, 40), shape=(30, 40), opaque: bool = False):
    picture = np.zeros((48, 48, 4), np.uint8)
    picture[4 : 4 + shape[0], 4 : 4 + shape[1]] = (*colour, 255)
    if opaque:
        picture[..., 3] = 255
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return STEM + path, caption, file.getvalue()


@pytest.mark.parametrize(
    ("caption", "noun"),
    [
        ("A red apple.", "apple"),
        ("An African elephant.", "african elephant"),
        ("A bunch of grapes.", "grapes"),
        ("A pair of closed scissors.", "closed scissors"),
        ("The baby of a gnu.", "gnu"),
        ("A “Fuji” apple.", "fuji apple"),
        ("Fire! Fire! Fire!", ""),
        ("A wheel! Put the brake calipers toward the rear.", ""),
        ("A stethoscope lets your doctor listen to your heart.", ""),
        ("A green.", ""),
    ],
)
def test_a_caption_that_names_a_thing_gives_its_noun_and_a_story_gives_none(caption, noun):
    assert noun_of(caption) == noun


def test_photographs_become_held_out_sprites_one_per_name():
    atlas = build_photos(
        iter(
            [
                stamp("animals/duck", "A duck."),
                stamp("animals/duck2", "A duck.", shape=(20, 40)),
                stamp("food/pear", "A green pear.", (40, 200, 40), (40, 22)),
                stamp("animals/cartoon/owl", "An owl.", (90, 90, 10), (40, 30)),
                stamp("food/pear_mirror", "A mirrored pear.", (1, 1, 1), (12, 40)),
                stamp("food/scene", "A scene.", (1, 1, 1), opaque=True),
            ]
        )
    )
    assert [sprite.name for sprite in atlas.sprites] == ["duck", "pear"]
    assert {(sprite.style, sprite.split, sprite.licence) for sprite in atlas.sprites} == {("photo", "test", "GPL-2.0")}


def test_a_package_without_photographs_is_refused():
    with pytest.raises(ValueError, match="no usable photograph"):
        build_photos(iter([stamp("symbols/letter", "A letter.")]))


def test_clips_of_photographs_keep_their_colours(tmp_path):
    build_photos(iter([stamp("animals/duck", "A duck.")])).save(tmp_path / "photos.safetensors")
    world = World(Atlas.load(tmp_path / "photos.safetensors"), "test")
    words = {world.clip(index).colour for index in range(24)}
    assert words == {"", "red"}

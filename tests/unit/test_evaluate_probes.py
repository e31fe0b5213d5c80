"""The text probes: what chance is, and what is read off clips whose captions are known to be true."""

from itertools import permutations

import numpy as np
import pytest
import torch

from dv2_core.evaluate.background import BackgroundClassifier, background_picture, statistics
from dv2_core.evaluate.pairs import Pair, to_frames
from dv2_core.evaluate.probes import agreement, colour_seen, direction_seen, probe, probes_of
from dv2_core.evaluate.prompts import CONDITIONS
from dv2_core.world.atlas import Atlas, Sprite
from dv2_core.world.clips import BACKGROUNDS, World, random_background


class Knowing:
    """A detector that knows where the subjects of its clips are."""

    def __init__(self, pairs):
        self.alpha = {pair.real.tobytes(): pair.clip.alpha for pair in pairs}

    def regions(self, frames):
        return self.alpha[(frames * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy().tobytes()]


@pytest.fixture(scope="module")
def classifier() -> BackgroundClassifier:
    return BackgroundClassifier(examples=150)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Forty real clips of plain discs, whose captions say the truth."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    rgba, sprites = [], []
    for number, colour in enumerate([(220, 30, 30), (40, 80, 230), (40, 180, 60), (240, 220, 40)]):
        picture = np.zeros((64, 64, 4), np.uint8)
        picture[x**2 + y**2 < 0.9] = (*colour, 255)
        rgba.append(picture)
        sprites.append(Sprite(f"{number}", f"disc{number}", "noto", "Apache-2.0", "test"))
    world = World(Atlas(np.stack(rgba), sprites), "test", seed=3)
    return [Pair(number, world.clip(number)) for number in range(40)]


# --- chance -----------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_always_right_or_never_is_one_or_zero():
    words = ["left", "right", "left", "up"]
    assert agreement(words, words).accuracy == 1
    assert agreement([""] * 4, words).accuracy == 0


def test_chance_and_its_spread_are_those_of_all_shuffled_captions():
    answers, words = ["a", "a", "b", "c", ""], ["a", "b", "b", "c", "a"]
    found = agreement(answers, words)
    shares = [np.mean([x == y for x, y in zip(answers, order, strict=True)]) for order in permutations(words)]
    assert found.accuracy == 3 / 5
    assert found.chance == pytest.approx(np.mean(shares))
    assert found.error == pytest.approx(np.std(shares))
    assert found.sigmas == pytest.approx((0.6 - np.mean(shares)) / np.std(shares))


def test_a_model_that_always_does_the_same_is_at_chance_however_often_that_is_right():
    found = agreement(["still"] * 10, ["still"] * 9 + ["up"])
    assert found.accuracy == found.chance == 0.9 and found.sigmas == 0


def test_four_of_four_kinds_in_a_hundred_clips_lie_far_above_chance_and_a_coin_does_not():
    words = [str(i % 4) for i in range(100)]
    assert agreement(words, words).sigmas > 15
    coin = np.random.default_rng(0).integers(4, size=100).astype(str).tolist()
    assert abs(agreement(coin, words).sigmas) < 3


def test_answers_and_words_must_be_as_many_and_two_at_least():
    for answers, words in ((["a"], ["a"]), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match="cannot be compared"):
            agreement(answers, words)


# --- direction and colour ---------------------------------------------------------------------------------------------


def test_direction_is_read_from_the_first_and_last_box_that_was_found():
    box, nothing = np.array([0.1, 0.4, 0.3, 0.6]), np.full(4, np.nan)
    right, down = [0.5, 0, 0.5, 0], [0, 0.3, 0, 0.3]
    assert direction_seen(np.stack([nothing, box, box + down, box + right, nothing])) == "right"
    assert direction_seen(np.stack([box, box + down])) == "down"
    assert direction_seen(np.stack([box + right, box])) == "left"
    assert direction_seen(np.stack([box, box + right, box])) == "still"
    assert direction_seen(np.stack([box, nothing])) == ""


def test_colour_is_read_from_the_subjects_own_pixels():
    frames = torch.tensor([0.1, 0.2, 0.9])[:, None, None].expand(2, 3, 32, 32).clone()  # blue
    regions = torch.zeros(2, 32, 32, dtype=torch.bool)
    assert colour_seen(frames, regions) == ""
    regions[:, 8:16, 8:16] = True
    assert colour_seen(frames, regions) == "blue"
    frames[:, :, 8:16, 8:16] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    assert colour_seen(frames, regions) == "red"
    frames[1, :, 8:16, 8:16] = 0.9  # white in one frame of two
    assert colour_seen(frames, regions) == "red"


# --- background -------------------------------------------------------------------------------------------------------


def test_the_background_is_what_the_boxes_do_not_hide_in_some_frame():
    frames = torch.zeros(2, 3, 64, 64)
    frames[0, :, 8:24, 8:24] = 1  # the subject moves off
    frames[1, :, 40:56, 40:56] = 1
    boxes = np.array([[0.125, 0.125, 0.375, 0.375], [0.625, 0.625, 0.875, 0.875]])
    picture, seen = background_picture(frames, boxes)
    assert seen.all() and picture.max() == 0
    picture, seen = background_picture(frames[:1], boxes[:1])
    assert (~seen).sum() == 20 * 20 and picture[:, seen].max() == 0  # the box and two pixels around it


def test_statistics_of_a_frame_that_is_hidden_altogether_are_zeros():
    hidden = background_picture(torch.rand(1, 3, 64, 64), np.array([[0, 0, 1, 1.0]]))
    assert not statistics(*hidden).any()
    assert torch.isfinite(statistics(torch.full((3, 64, 64), 0.5), torch.ones(64, 64, dtype=torch.bool))).all()


def test_real_backgrounds_are_told_apart_and_so_are_noisy_ones(classifier):
    rng, generator = np.random.default_rng(9), torch.Generator().manual_seed(9)
    right = {0.0: 0, 0.08: 0}
    for index in range(50):
        kind = BACKGROUNDS[index % 5]
        frames = random_background(rng, kind, 64)[None].repeat(4, 1, 1, 1)
        for noise in right:
            shown = (frames + noise * torch.randn(frames.shape, generator=generator)).clamp(0, 1)
            right[noise] += classifier.kind(shown, np.tile([0.3, 0.3, 0.6, 0.6], (4, 1))) == kind
    assert right[0.0] >= 45 and right[0.08] >= 35


def test_two_classifiers_give_the_same_answers_and_leave_the_global_generator_alone(pairs):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = BackgroundClassifier(examples=20)
    assert torch.equal(torch.rand(3), expected)
    other = BackgroundClassifier(examples=20)
    clips = [(to_frames(pair.real), pair.boxes) for pair in pairs[:12]]
    assert [one.kind(*clip) for clip in clips] == [other.kind(*clip) for clip in clips]


# --- together ---------------------------------------------------------------------------------------------------------


def test_real_clips_show_what_their_captions_say(pairs, classifier):
    detected = np.stack([pair.boxes for pair in pairs])
    found = probe(probes_of(None), [p.real for p in pairs], detected, pairs, Knowing(pairs), classifier)
    assert found["direction"].accuracy == 1 and found["direction"].clips == 40
    assert found["background"].accuracy > 0.85
    assert found["colour"].clips == sum(bool(p.clip.colour) for p in pairs) < 40
    assert found["colour"].accuracy > 0.9
    assert all(a.sigmas > 4 for a in found.values())


def test_clips_that_belong_to_other_captions_are_at_chance(pairs, classifier):
    moved = [*pairs[7:], *pairs[:7]]
    detected = np.stack([pair.boxes for pair in moved])
    found = probe(probes_of(None), [p.real for p in moved], detected, pairs, Knowing(pairs), classifier)
    assert all(abs(a.sigmas) < 3 for a in found.values())


def test_a_probe_is_asked_only_where_nothing_but_text_could_answer():
    asked = {condition.name: set(probes_of(condition)) for condition in CONDITIONS}
    assert asked == {
        "text only": {"direction", "background", "colour"},
        "boxes only": {"background", "colour"},
        "subject only": {"direction", "background"},
        "boxes + subject": {"background"},
    }

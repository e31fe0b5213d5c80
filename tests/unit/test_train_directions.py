"""The lesson about the direction word: its targets, its loss, what it leaves alone, and the files that come out."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from dv2_core.train import directions, files
from dv2_core.train.config import TrainConfig
from dv2_core.train.data_config import MiniWorldConfig
from dv2_core.train.data_mini import MiniWorld
from dv2_core.train.directions import AMPLIFIED, UNUSUAL_WEIGHT, USUAL, WORDS, Lesson, mean_ways, teach, with_direction
from dv2_core.train.loop import vocabulary_size
from dv2_core.train.model import TrainingModel


@pytest.fixture
def config(tiny_config: TrainConfig) -> TrainConfig:
    adapter = dataclasses.replace(tiny_config.adapter, prediction="v_zsnr")
    return dataclasses.replace(tiny_config, trains=("base", "text", "adapter"), adapter=adapter)


@pytest.fixture
def data(config: TrainConfig) -> MiniWorld:
    assert isinstance(config.data, MiniWorldConfig)
    return MiniWorld(config.data, config.draws)


@pytest.fixture
def lesson(config: TrainConfig, data: MiniWorld) -> Lesson:
    torch.manual_seed(0)
    model = TrainingModel(config, vocabulary_size(data.words), torch.device("cpu"))
    files.load_initial(model)
    for p in model.base.parameters():  # a new base says 0 whatever the text
        torch.nn.init.normal_(p, std=0.05)
    return Lesson(model, data, mean_ways(data, 60), seed=0)


def test_a_caption_is_given_another_direction_and_keeps_the_rest() -> None:
    assert with_direction("a red cat moving left on a plain background", "up") == (
        "a red cat moving up on a plain background"
    )
    assert with_direction("a cat standing still on a cloudy background", "right") == (
        "a cat moving right on a cloudy background"
    )


def test_the_way_of_a_word_is_that_of_its_opposite_with_the_other_sign_and_backwards(data: MiniWorld) -> None:
    ways = mean_ways(data, 60)
    assert ways.shape == (4, data.config.num_frames, *data.size.latent)
    for word, opposite in ((0, 1), (2, 3)):
        torch.testing.assert_close(ways[word], -ways[opposite])
        torch.testing.assert_close(ways[word], -ways[word].flip(0))
        assert ways[word].abs().max() > 0.01
    assert (ways[0] * ways[2]).mean().abs() < (ways[0].square().mean() * ways[2].square().mean()).sqrt()


def test_means_of_clips_that_lack_a_direction_are_refused(data: MiniWorld) -> None:
    with pytest.raises(ValueError, match=r"None of the 1 clips goes .* take the mean of more clips"):
        mean_ways(data, 1)


@pytest.mark.parametrize("first", [True, False])
def test_at_first_the_loss_is_the_power_of_what_is_asked_for_and_the_teacher_stays(lesson: Lesson, first: bool) -> None:
    lesson.model.text.requires_grad_(False)  # type: ignore[union-attr]
    with torch.no_grad():
        for p in lesson.model.text.parameters():  # type: ignore[union-attr]
            p.zero_()  # the words are all alike, so nothing is shown yet
        for p in lesson.before[0].text.parameters():  # type: ignore[union-attr]
            p.zero_()
    loss, _, shown = lesson(0, AMPLIFIED, 2, near=False, first=first)
    weight = torch.tensor([UNUSUAL_WEIGHT, 1.0] * 2)[:, None, None, None, None]
    goal = AMPLIFIED * (lesson.ways[USUAL] if first else lesson.ways)
    assert loss.item() == pytest.approx((goal.square() * weight).mean().item(), rel=1e-4)
    assert shown.abs().max() < 1e-3

    teacher = [p.clone() for p in lesson.before[0].parameters()]
    optimizer = torch.optim.AdamW(lesson.model.base.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        last = lesson(0, AMPLIFIED, 2, near=False, first=first)[0]
        last.backward()
        optimizer.step()
    if first:  # the pattern is found at once, the words take longer
        assert last.item() < 0.98 * loss.item()
    assert all(torch.equal(a, b) for a, b in zip(teacher, lesson.before[0].parameters(), strict=True))
    assert not any(name.startswith("before") for name, _ in lesson.named_parameters())


def test_beside_a_batch_the_loss_is_the_plain_one_and_the_lessons(lesson: Lesson, data: MiniWorld) -> None:
    batch = data.batch(0)
    whole, plain, _ = lesson(3, 5.0, 1, near=True, batch=batch)
    assert plain.item() == pytest.approx(lesson.model(batch)[0].item())
    assert whole > plain
    # the lesson has no part in the adapter, and the whole loss trains all of it
    whole.backward()
    assert all(p.grad is not None for p in lesson.model.parameters())


def test_a_teaching_leaves_a_log_and_files_that_load(
    config: TrainConfig, data: MiniWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dict(CLIPS=60, PATTERN_STEPS=2, WORD_STEPS=8, LEARNED=-1e9).items():
        monkeypatch.setattr(directions, name, value)
    teach(dataclasses.replace(config, steps=2, log_steps=1, total_batch=0), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in rows] == [("lesson", 3), ("train", 1), ("train", 2)]
    assert rows[1]["factor"] == AMPLIFIED and all(f"word_{word}" in rows[0] for word in WORDS)
    model = TrainingModel(config, vocabulary_size(data.words), torch.device("cpu"))
    files.load_exported(model, tmp_path / "export")


def test_words_that_are_not_learned_end_the_teaching_with_a_sentence(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dict(CLIPS=60, PATTERN_STEPS=1, WORD_STEPS=1).items():
        monkeypatch.setattr(directions, name, value)
    with pytest.raises(ValueError, match="After 2 steps the words do not turn the pattern"):
        teach(config, tmp_path)


@pytest.mark.parametrize("wrong", ["prediction", "trains"])
def test_another_kind_of_training_is_refused(config: TrainConfig, tmp_path: Path, wrong: str) -> None:
    if wrong == "prediction":
        config = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, prediction="eps"))
    else:
        config = dataclasses.replace(config, trains=("base", "text"))
    with pytest.raises(ValueError, match="The preset mini-directions says so"):
        teach(config, tmp_path)

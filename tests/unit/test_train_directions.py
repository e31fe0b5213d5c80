"""The lesson about the direction word: its targets, its loss, what it leaves alone, and the files that come out."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dv2_core.train import directions, files
from dv2_core.train.config import TrainConfig
from dv2_core.train.data_config import MiniWorldConfig
from dv2_core.train.data_mini import MiniWorld
from dv2_core.train.directions import AMPLIFIED, AMPLIFIED_LAST, USUAL, WORDS, Lesson, mean_ways, with_direction
from dv2_core.train.loop import train, vocabulary_size
from dv2_core.train.model import TrainingModel


@pytest.fixture
def config(tiny_config: TrainConfig) -> TrainConfig:
    adapter = dataclasses.replace(tiny_config.adapter, prediction="v_zsnr")
    return dataclasses.replace(tiny_config, trains=("base", "text", "adapter"), adapter=adapter, directions=True)


@pytest.fixture
def data(config: TrainConfig) -> MiniWorld:
    assert isinstance(config.data, MiniWorldConfig)
    return MiniWorld(config.data, config.draws)


@pytest.fixture(autouse=True)
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "CLIPS", 60)


@pytest.fixture
def lesson(config: TrainConfig, data: MiniWorld) -> Lesson:
    torch.manual_seed(0)
    model = TrainingModel(config, vocabulary_size(data.words), torch.device("cpu"))
    files.load_initial(model)
    for p in model.base.parameters():  # a new base says 0 whatever the text
        torch.nn.init.normal_(p, std=0.05)
    return Lesson(model, data, processes=1)


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
    weight = torch.tensor([0.35, 1.0, 0.35, 1.0])
    loss, words = lesson.loss(0, AMPLIFIED, captions=2, first=first, weight=weight)
    goal = AMPLIFIED * (lesson.ways[USUAL] if first else lesson.ways)
    assert loss.item() == pytest.approx((goal.square() * weight[:, None, None, None, None]).mean().item(), rel=1e-4)
    assert list(words) == [f"word_{word}" for word in WORDS]
    assert all(share.abs() < 1e-3 for share in words.values())

    teacher = [p.clone() for p in lesson.before[0].parameters()]
    optimizer = torch.optim.AdamW(lesson.model.base.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        last = lesson.loss(0, AMPLIFIED, captions=2, first=first, weight=weight)[0]
        last.backward()
        optimizer.step()
    if first:  # the pattern is found at once, the words take longer
        assert last.item() < 0.98 * loss.item()
    assert all(torch.equal(a, b) for a, b in zip(teacher, lesson.before[0].parameters(), strict=True))
    assert not any(name.startswith("before") for name, _ in lesson.named_parameters())


def test_beside_a_batch_the_loss_is_the_plain_one_and_the_lessons(lesson: Lesson, data: MiniWorld) -> None:
    batch = data.batch(3)
    whole, figures = lesson(batch)
    alone, words = lesson.loss(10_003, lesson.factor(3), captions=1, near=True, with_subject=0.5)
    plain, parts = lesson.model(batch)
    assert whole.item() == pytest.approx(plain.item() + alone.item())
    assert figures == {**parts, **words} and alone > 0
    whole.backward()  # all parts of the model learn, as accelerate asks for with several processes
    assert all(p.grad is not None for p in lesson.model.parameters())


def test_what_is_asked_for_falls_until_the_middle_of_the_training(lesson: Lesson) -> None:
    factors = [lesson.factor(step) for step in range(lesson.config.steps)]
    assert factors == sorted(factors, reverse=True) and factors[0] == pytest.approx(AMPLIFIED)
    assert factors[(lesson.config.steps + 1) // 2 :] == [AMPLIFIED_LAST] * (lesson.config.steps // 2)


def test_a_lesson_with_the_subject_hears_it_and_teaches_the_adapter(lesson: Lesson) -> None:
    assert lesson.model.adapter is not None and lesson.model.adapter.ref is not None
    for p in lesson.model.adapter.parameters():  # a new adapter says nothing
        torch.nn.init.normal_(p, std=1.0)
    by_text = lesson.loss(5, 4.0, captions=1, near=True)[0]
    by_both = lesson.loss(5, 4.0, captions=1, near=True, with_subject=1.0)[0]
    assert by_text != by_both
    by_both.backward()
    assert all(p.grad is not None for p in lesson.model.adapter.ref.parameters())
    assert lesson.model.adapter.motion is not None
    assert all(p.grad is None for p in lesson.model.adapter.motion.parameters())  # a lesson has no boxes


def taught(config: TrainConfig, out: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> None:
    for name, value in dict(PATTERN_STEPS=2, WORD_STEPS=8, LEARNED=-1e9).items():
        monkeypatch.setattr(directions, name, value)
    settings = dict(steps=4, log_steps=1, total_batch=0, validate_steps=0, sample_steps=0)
    train(dataclasses.replace(config, **settings), out, stop_after)


def test_a_training_with_it_leaves_a_log_and_files_that_load(
    config: TrainConfig, data: MiniWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught(config, tmp_path, monkeypatch)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in rows] == [("lesson", 0), *(("train", n) for n in range(1, 5))]
    assert rows[0]["lesson_step"] == 3
    assert all(f"word_{word}" in row for word in WORDS for row in rows)
    assert rows[1]["loss"] > rows[1]["mse"]
    model = TrainingModel(config, vocabulary_size(data.words), torch.device("cpu"))
    files.load_exported(model, tmp_path / "export")


def test_one_that_was_stopped_goes_on_to_the_same_weights_without_learning_the_words_again(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    taught(config, whole, monkeypatch)
    taught(config, parts, monkeypatch, stop_after=2)
    monkeypatch.setattr("dv2_core.train.loop.learn_words", None)
    taught(config, parts, monkeypatch)
    for name in ("base", "text", "adapter"):
        once, twice = (load_file(folder / f"export/dv2-mini-{name}.safetensors") for folder in (whole, parts))
        assert once.keys() == twice.keys() and all(torch.equal(once[key], twice[key]) for key in once)
    kinds = [json.loads(line)["kind"] for line in (parts / "log.jsonl").read_text().splitlines()]
    assert kinds == ["lesson", *["train"] * 4]


def test_words_that_are_not_learned_end_the_training_with_a_sentence(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dict(PATTERN_STEPS=1, WORD_STEPS=1).items():
        monkeypatch.setattr(directions, name, value)
    with pytest.raises(ValueError, match="After 2 steps the words do not turn the pattern"):
        train(config, tmp_path)


@pytest.mark.parametrize("wrong", ["prediction", "trains"])
def test_another_kind_of_training_is_refused(config: TrainConfig, wrong: str) -> None:
    changed = {
        "prediction": {"adapter": dataclasses.replace(config.adapter, prediction="eps")},
        "trains": {"trains": ("base", "text")},
    }[wrong]
    with pytest.raises(ValueError, match="taught to the whole miniature with zero terminal SNR"):
        dataclasses.replace(config, **changed)

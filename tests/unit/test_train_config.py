"""Training configs: presets, files that extend them, and a sentence for everything that cannot be meant."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dv2_core.model import UNet3DConfig
from dv2_core.train.config import PRESETS, TrainConfig

NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))


@pytest.fixture
def write(tmp_path: Path, tiny_toml: Path) -> Any:
    def write(text: str, name: str = "own.toml") -> Path:
        (tmp_path / name).write_text(f'extends = "{tiny_toml.as_posix()}"\n{text}')
        return tmp_path / name

    return write


def test_every_preset_is_valid_and_can_be_named() -> None:
    assert {"mini", "mini-base", "modelscope-448x256", "subject-only", "motion-only"} <= set(NAMES)
    for name in NAMES:
        assert TrainConfig.load(name).steps > 0


def test_the_modelscope_preset_is_the_training_of_the_paper() -> None:
    config = TrainConfig.load("modelscope-448x256")
    assert config.unet == UNet3DConfig.modelscope() and config.trains == ("adapter",)
    assert (config.steps, config.lr, config.weight_decay, config.optimizer) == (30_000, 1e-4, 0.0, "adamw")
    assert (config.adapter.lambda_m, config.adapter.lambda_l, config.adapter.prediction) == (0.75, 2.0, "eps")
    assert config.adapter.trained == (16, 448, 256, 8)
    for processes in (1, 2, 8, 72):
        assert config.batch * processes * config.accumulate(processes) == 144


def test_subject_only_has_no_mask_and_motion_only_has_no_reference() -> None:
    subject, motion = TrainConfig.load("subject-only").adapter, TrainConfig.load("motion-only").adapter
    assert (subject.components, subject.lambda_m, subject.lambda_l) == (("ref",), 1.0, 1.0)
    assert (motion.components, motion.lambda_l) == (("motion",), 2.0)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("learning_rate = 1.0", "learning_rate"),
        ("[data]\nmanifets = 'x'", "manifets"),
        ("[adapter]\nlambda_k = 1.0", "lambda_k"),
        ("[unet]\nwidth = 32", "width"),
        ("[text]\ndepth = 2", "depth"),
    ],
)
def test_a_key_that_is_no_setting_is_refused_by_name_in_every_table(write: Any, text: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown .*{name}"):
        TrainConfig.load(write(text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps = 0", "steps is 0; it must be 1 or more"),
        ("steps = 2.5", "steps is 2.5; it must be a whole number"),
        ('lr = "1e-4"', "lr is '1e-4'; it must be a number"),
        ("lr = 0", "must be above 0"),
        ("decay = 2.0", "decay is 2.0"),
        ("ema = 1.0", "ema is 1.0"),
        ('optimizer = "sgd"', "optimizer is 'sgd'; it must be one of"),
        ('frozen_dtype = "bf16"', 'Set mixed_precision = "bf16"'),
        ('trains = ["unet"]', "trains is"),
        ("data = 1", "data is 1; it must be a table"),
        ('unet = "huge"', "unet is 'huge'; give a table, or one of"),
        ("steps = ", "own.toml is not valid TOML"),
    ],
)
def test_a_value_that_cannot_be_meant_gets_a_sentence(write: Any, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrainConfig.load(write(text))


def test_a_file_changes_only_what_it_says_of_what_it_extends(write: Any, tiny_config: TrainConfig) -> None:
    write("lr = 0.5\n[adapter]\nlambda_m = 0.25", "first.toml")
    config = TrainConfig.load(write("[data]\nnum_frames = 3", "second.toml"))
    assert config.data == dataclasses.replace(tiny_config.data, num_frames=3) and config.lr == tiny_config.lr
    (path := write("", "third.toml")).write_text('extends = "first.toml"\nsteps = 7')
    config = TrainConfig.load(path)
    assert (config.lr, config.steps, config.adapter.lambda_m) == (0.5, 7, 0.25)
    assert config.adapter.encoder_channels == tiny_config.adapter.encoder_channels


def test_data_of_another_kind_takes_nothing_from_the_data_that_it_replaces(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        'extends = "mini"\n[data]\nkind = "clips"\nmanifest = "m.jsonl"\nvae = "v"\ntext_encoder = "t"\ncache = "c"'
    )
    assert TrainConfig.load(tmp_path / "own.toml").data.kind == "clips"


def test_a_config_that_extends_itself_or_nothing_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    with pytest.raises(ValueError, match="extends itself"):
        TrainConfig.load(tmp_path / "a.toml")
    with pytest.raises(ValueError, match="no preset; the presets are mini, mini-base, mini-directions, modelscope"):
        TrainConfig.load("minni")
    (tmp_path / "c.toml").write_text("steps = 3")
    with pytest.raises(ValueError, match="has no data and no trains"):
        TrainConfig.load(tmp_path / "c.toml")


def test_a_total_batch_that_cannot_be_had_exactly_is_refused(tiny_config: TrainConfig) -> None:
    config = dataclasses.replace(tiny_config, batch=4, total_batch=24)
    assert [config.accumulate(n) for n in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(ValueError, match="5 processes of batch 4 make 20 at once"):
        config.accumulate(5)


def test_a_config_survives_its_own_plain_values(tiny_config: TrainConfig) -> None:
    assert TrainConfig.from_dict(tiny_config.to_dict()) == tiny_config

"""The rows of the ablation: each changes what its name says of the full method, and nothing else."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dv2_core.ablate.rows import FULL, ROWS, UNTRAINED, curve_steps, named
from dv2_core.ablate.study import WORLD_SEED, Study
from dv2_core.evaluate.detector import DEFAULT_FILE
from dv2_core.evaluate.pairs import SEED
from dv2_core.model import UNet3DConfig
from dv2_core.train import files
from dv2_core.train.config import TrainConfig

CHANGES: dict[str, dict[str, Any]] = {
    "full": {},
    "naive": {"lambda_m": 1.0, "lambda_l": 1.0},
    "mask-0": {"lambda_m": 0.0},
    "mask-0.25": {"lambda_m": 0.25},
    "mask-0.5": {"lambda_m": 0.5},
    "mask-1": {"lambda_m": 1.0},
    "no-motion-encoder": {"motion_encoder": "none"},
    "no-motion-module": {"components": ("ref",)},
    "loss-1": {"lambda_l": 1.0},
    "loss-1.5": {"lambda_l": 1.5},
    "loss-4": {"lambda_l": 4.0},
    "subject-only": {"components": ("ref",), "lambda_m": 1.0, "lambda_l": 1.0},
    "motion-only": {"components": ("motion",)},
    "subject-at-t": {"ref_timestep": "video"},
    "attention-output": {"ref_features": "attention"},
    "wide-heads": {"ref_head_dim": 0},
    "box-position": {"ref_position": "box"},
    "shared-projections": {"ref_sharing": "width"},
    "lite-motion": {"motion_control": "t2i_adapter"},
    "lite": {"ref_sharing": "width", "motion_control": "t2i_adapter"},
    "lite-box-position": {"ref_sharing": "width", "motion_control": "t2i_adapter", "ref_position": "box"},
    "uncond-subject": {"ref_uncond": "same"},
    "uncond-none": {"motion_uncond": "drop"},
    "uncond-subject-no-boxes": {"ref_uncond": "same", "motion_uncond": "drop"},
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study whose base files hold their settings alone: configs need no weights."""
    unet = {"dreamvideo2.unet": json.dumps(UNet3DConfig(24, 24, 32, (1, 1), 1, (1,), 16, 2, 32).to_dict()),
            "dreamvideo2.prediction": "v", "format": "dreamvideo2-base"}  # fmt: skip
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 16}
    text = {"dreamvideo2.text": json.dumps(shape), "format": "dreamvideo2-text"}
    for name, metadata in ((files.BASE, unet), (files.TEXT, text)):
        save_file({"weight": torch.zeros(1)}, tmp_path / name, metadata=metadata)
    return Study(
        base=tmp_path, out=tmp_path / "out", atlas=tmp_path / "atlas", vae=tmp_path / "vae", detector=DEFAULT_FILE,
        steps=30,
    )  # fmt: skip


def differences(config: TrainConfig, other: TrainConfig) -> dict[str, Any]:
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(other, field.name)
    }


def test_every_row_differs_from_the_full_method_in_exactly_the_settings_of_its_name(study: Study) -> None:
    assert [row.name for row in ROWS] == list(CHANGES)
    full = study.config(named(["full"])[0], 0)
    for row in ROWS:
        config = study.config(row, 0)
        assert differences(config, dataclasses.replace(full, adapter=config.adapter)) == {}
        changed = {
            field.name: getattr(config.adapter, field.name)
            for field in dataclasses.fields(full.adapter)
            if getattr(config.adapter, field.name) != getattr(full.adapter, field.name)
        }
        assert changed == CHANGES[row.name], row.name


def test_the_full_method_has_the_papers_values(study: Study) -> None:
    adapter = study.config(named(["full"])[0], 0).adapter
    assert (adapter.lambda_m, adapter.lambda_l, adapter.components) == (0.75, 2.0, ("ref", "motion"))
    assert adapter.motion_encoder == "spatiotemporal" and adapter.ref_timestep == "zero"


def test_two_seeds_of_a_row_differ_in_the_seed_alone(study: Study) -> None:
    row = named(["mask-0"])[0]
    assert differences(study.config(row, 1), study.config(row, 0)) == {"seed": 1}


def test_the_protocol_decides_what_learns_in_all_rows(study: Study) -> None:
    unfrozen = dataclasses.replace(study, protocol="unfrozen")
    for row in ROWS:
        assert study.config(row, 0).trains == ("adapter",)
        assert unfrozen.config(row, 0).trains == ("base", "text", "adapter")


def test_the_shape_of_base_and_text_encoder_comes_from_their_files(study: Study) -> None:
    config = study.config(ROWS[0], 0)
    assert (config.unet.model_channels, config.text.width, config.adapter.prediction) == (32, 32, "v")


def test_a_base_that_the_trainer_did_not_write_is_refused(study: Study) -> None:
    save_file({"weight": torch.zeros(1)}, study.base / files.BASE)
    with pytest.raises(ValueError, match="not written by the trainer"):
        study.config(ROWS[0], 0)


def test_rows_that_only_sample_change_nothing_that_is_trained() -> None:
    for row in ROWS:
        if row.weights_of:
            assert set(row.changes) <= {"ref_uncond", "motion_uncond"}
            assert named([row.weights_of])[0].weights_of == ""


def test_the_four_unconditional_branches_are_all_there() -> None:
    sampled = [row for row in ROWS if row.weights_of == "full" or row.name == "full"]
    assert {(row.adapter["ref_uncond"], row.adapter["motion_uncond"]) for row in sampled} == {
        ("same", "same"), ("same", "drop"), ("drop", "same"), ("drop", "drop"),
    }  # fmt: skip


def test_a_row_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mask-2"):
        named(["full", "mask-2"])


def test_rows_with_a_curve_are_measured_along_the_way_and_all_others_at_the_end(study: Study) -> None:
    assert curve_steps(600) == [100, 200, 600]
    assert curve_steps(2) == [1, 2]
    by_name = {row.name: study.checkpoints(row) for row in ROWS}
    curves = ("full", "naive", "box-position")
    assert all(by_name[name] == curve_steps(30) for name in curves)
    assert {tuple(steps) for name, steps in by_name.items() if name not in curves} == {(30,)}
    assert study.checkpoints(UNTRAINED) == [0]


def test_the_validation_world_is_neither_the_evaluations_nor_a_trainings() -> None:
    assert WORLD_SEED not in (SEED, *range(100))


def test_the_paper_numbers_stand_beside_their_own_rows() -> None:
    paper = {row.name: row.paper for row in ROWS if row.paper}
    assert paper["full"][:3] == (0.670, 0.048, 0.392) and paper["mask-1"][:3] == (0.601, 0.055, 0.370)
    assert paper["motion-only"][:2] == (0.752, 0.039) and FULL["lambda_m"] == 0.75
    assert all(len(numbers) == 5 for numbers in paper.values())

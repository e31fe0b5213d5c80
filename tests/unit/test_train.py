"""The trainer: exact resume, frozen parts, files that load in the nodes. Drawn subjects, a UNet of 32 channels."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dv2_core.drawn import drawn_subjects
from dv2_core.model import AdapterConfig, UNet3DConfig, read_adapter
from dv2_core.train import files
from dv2_core.train.config import TrainConfig
from dv2_core.train.loop import train
from dv2_core.world.atlas import Atlas, Sprite, fit_sprite
from dv2_core.world.clips import World
from dv2_core.world.latent import PatchPCA

UNET = UNet3DConfig(24, 24, 32, (1, 1), 1, (1,), 16, 2, 32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an atlas of drawn subjects and the latent fitted to it."""
    folder = tmp_path_factory.mktemp("world")
    pictures = drawn_subjects()
    sprites = [
        Sprite(concept=name, name=name, style="drawn", licence="Apache-2.0", split="train" if n % 3 else "test")
        for n, name in enumerate(pictures)
    ]
    rgba = np.stack([fit_sprite(np.asarray(picture)) for picture in pictures.values()])
    atlas = Atlas(rgba, sprites)
    atlas.save(folder / "atlas.safetensors")
    clips = World(atlas, "train")
    PatchPCA.fit(clips.clip(n).frames for n in range(24)).save(folder / "latent.safetensors")
    return folder


@pytest.fixture
def config(world: Path) -> TrainConfig:
    return TrainConfig(
        trains=("base", "text", "adapter"), atlas=str(world / "atlas.safetensors"),
        latent=str(world / "latent.safetensors"), steps=4, unet=UNET,
        adapter=AdapterConfig(unet=UNET, encoder_channels=(8, 8, 8, 8), encoder_heads=1, prediction="v"),
        num_frames=2, text_width=32, text_layers=1, batch=2, preview_steps=100,
    )  # fmt: skip


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    state = files.load_checkpoint(out / "checkpoint.pt")
    return {**state["weights"], **{f"ema.{k}": v for k, v in state["ema"].items()}}


def test_two_steps_and_a_resume_equal_four_steps_bitwise(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=2)
    train(config, tmp_path / "parts")
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    logs = [
        [json.loads(row) for row in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("whole", "parts")
    ]
    assert [(r["step"], r["loss"]) for r in logs[0]] == [(r["step"], r["loss"]) for r in logs[1]]


def test_a_kill_while_writing_a_checkpoint_leaves_the_previous_one(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path, stop_after=2)
    (tmp_path / "checkpoint.tmp").write_bytes(b"half of a checkpoint")
    train(config, tmp_path)
    assert files.load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 4


def test_a_frozen_base_stays_bit_identical_and_gets_no_optimiser_state(config: TrainConfig, tmp_path: Path) -> None:
    train(dataclasses.replace(config, trains=("base", "text"), steps=2), tmp_path / "base")
    frozen = dataclasses.replace(config, trains=("adapter",), init=str(tmp_path / "base" / "export"), steps=2)
    train(frozen, tmp_path / "adapter")
    before = load_file(tmp_path / "base" / "export" / files.BASE)
    after = load_file(tmp_path / "adapter" / "export" / files.BASE)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(
        k.startswith("adapter.") for k in files.load_checkpoint(tmp_path / "adapter" / "checkpoint.pt")["weights"]
    )


def test_a_new_adapter_changes_nothing_before_its_first_step(config: TrainConfig) -> None:
    from dv2_core.train.data import Batches
    from dv2_core.train.model import TrainingModel

    torch.manual_seed(0)
    batches = Batches(config)
    model = TrainingModel(config, len(batches.tokenizer), torch.device("cpu")).eval()
    torch.nn.init.normal_(model.base.out[2].weight)  # type: ignore[arg-type]
    assert model.adapter is not None
    model.adapter.initialize_weights(model.base)
    b = batches(0)
    with torch.no_grad():
        with_adapter = model.predict(b.latents, b.timesteps, b.tokens, b.subject, b.masks, b.keep_ref, b.keep_motion)
        model.adapter = None
        without = model.predict(b.latents, b.timesteps, b.tokens, b.subject, b.masks, b.keep_ref, b.keep_motion)
    assert without.abs().max() > 0 and torch.equal(with_adapter, without)


def test_the_exported_adapter_reads_back_with_its_settings_and_names_its_base(
    config: TrainConfig, tmp_path: Path
) -> None:
    train(dataclasses.replace(config, steps=1), tmp_path)
    settings, metadata, _ = read_adapter(tmp_path / "export" / files.ADAPTER)
    assert settings == config.adapter
    assert metadata["base_model.fingerprint"] == files.fingerprint(load_file(tmp_path / "export" / files.BASE))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path, stop_after=1)
    broken = PatchPCA.load(config.latent)
    broken.encode_bias[0] = float("nan")
    broken.save(tmp_path / "broken.safetensors")
    with pytest.raises(FloatingPointError, match="the last good state"):
        train(dataclasses.replace(config, latent=str(tmp_path / "broken.safetensors")), tmp_path)
    assert files.load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1


def test_a_setting_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        TrainConfig.from_dict({"trains": ["base"], "atlas": "a", "latent": "l", "steps": 1, "learning_rate": 1.0})


def test_the_shipped_training_configs_are_valid() -> None:
    for path in sorted(Path(files.__file__).parent.glob("configs/*.toml")):
        assert TrainConfig.from_toml(path).steps > 0

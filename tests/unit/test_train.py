"""The trainer: exact resume, what learns and what stays, files that load in the nodes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import set_seed
from safetensors import safe_open
from safetensors.torch import load_file

from dv2_core.model import read_adapter
from dv2_core.train import files
from dv2_core.train.checkpoint import Checkpoints
from dv2_core.train.config import TrainConfig
from dv2_core.train.data import open_data
from dv2_core.train.loop import train, vocabulary_size
from dv2_core.train.model import TrainingModel
from dv2_core.world.latent import PatchPCA


def state_of(out: Path) -> dict[str, Any]:
    state = Checkpoints(out / "checkpoints").latest()
    assert state is not None
    return state


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    state = state_of(out)
    return {**state["weights"], **{f"ema.{k}": v for k, v in state["ema"].items()}}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def log_of(out: Path) -> list[dict[str, Any]]:
    timing = ("seconds", "clips_per_second")
    rows = [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in timing} for row in rows]


def tiny_model(config: TrainConfig) -> TrainingModel:
    data = open_data(config.data, config.draws)
    return TrainingModel(config, vocabulary_size(data.words), torch.device("cpu"))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_steps_and_a_resume_equal_four_steps_bitwise_and_log_every_step_once(
    tiny_config: TrainConfig, tmp_path: Path, optimizer: Any
) -> None:
    config = dataclasses.replace(tiny_config, optimizer=optimizer, total_batch=4)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=2)
    train(config, tmp_path / "parts")
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")
    assert [row["step"] for row in log_of(tmp_path / "parts")] == [1, 2, 3, 4]


def test_a_changed_rate_takes_effect_on_resume(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, warmup=0, decay=0.0, lr=1e-3, weight_decay=0.01)
    train(config, tmp_path, stop_after=2)
    train(dataclasses.replace(config, lr=5e-5, weight_decay=0.2, steps=3), tmp_path)
    assert [row["lr"] for row in log_of(tmp_path)] == [1e-3, 1e-3, 5e-5]
    group = state_of(tmp_path)["optimizer"]["param_groups"][0]
    assert (group["lr"], group["weight_decay"]) == (5e-5, 0.2)


def test_the_loss_of_a_step_is_the_mean_of_its_accumulated_passes(tiny_config: TrainConfig, tmp_path: Path) -> None:
    train(dataclasses.replace(tiny_config, total_batch=4, steps=1), tmp_path)
    set_seed(tiny_config.seed)
    model, data = tiny_model(tiny_config), open_data(tiny_config.data, tiny_config.draws)
    files.load_initial(model)
    losses = [model(data.batch(n))[0].item() for n in range(2)]
    assert losses[0] != losses[1]
    assert log_of(tmp_path)[0]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_a_frozen_base_is_passed_on_as_it_was_and_only_the_adapter_has_optimiser_state(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    train(dataclasses.replace(tiny_config, trains=("base", "text"), steps=2), tmp_path / "base")
    init = tmp_path / "base" / "export"
    frozen = dataclasses.replace(tiny_config, trains=("adapter",), init=str(init), steps=2)
    train(frozen, tmp_path / "adapter")
    for name in (files.BASE, files.TEXT):
        assert (init / name).read_bytes() == (tmp_path / "adapter" / "export" / name).read_bytes()
    state = state_of(tmp_path / "adapter")
    assert state["weights"] and all(name.startswith("adapter.") for name in state["weights"])
    moments = [v for s in state["optimizer"]["state"].values() for k, v in s.items() if k.startswith("exp_avg")]
    assert sum(m.numel() for m in moments) == 2 * sum(w.numel() for w in state["weights"].values())


def test_a_frozen_base_in_low_precision_keeps_its_name_and_trains_close_to_full_precision(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    train(dataclasses.replace(tiny_config, trains=("base", "text"), steps=2), tmp_path / "base")
    init = str(tmp_path / "base" / "export")
    model = tiny_model(dataclasses.replace(
        tiny_config, trains=("adapter",), init=init, mixed_precision="bf16", frozen_dtype="bf16"
    ))  # fmt: skip
    name = files.load_initial(model)
    model.lower_frozen()
    assert name == files.fingerprint(load_file(Path(init) / files.BASE))
    kept = {p.dtype for p in model.base.parameters() if p.ndim > 1}
    assert kept == {torch.bfloat16} and all(p.dtype == torch.float32 for p in model.learning.values())
    batch = open_data(tiny_config.data, tiny_config.draws).batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch)[0]
    loss.backward()
    full = tiny_model(dataclasses.replace(tiny_config, trains=("adapter",), init=init))
    files.load_initial(full)
    assert loss.item() == pytest.approx(full(batch)[0].item(), rel=0.02)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.learning.values())


def test_gradient_checkpointing_gives_the_same_gradients_with_the_reference_patches(tiny_config: TrainConfig) -> None:
    batch = open_data(tiny_config.data, tiny_config.draws).batch(0)
    gradients = []
    for recompute in (False, True):
        model = tiny_model(dataclasses.replace(tiny_config, gradient_checkpointing=recompute))
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.05, generator=generator)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            loss = model(batch)[0]
        loss.backward()
        gradients.append(({name: p.grad for name, p in model.named_parameters()}, sum(kept)))
    (plain, much), (recomputed, little) = gradients
    assert all(value is not None for value in plain.values())
    assert same(plain, recomputed)  # type: ignore[arg-type]
    assert little < much / 2


def test_a_new_adapter_changes_nothing_before_its_first_step(tiny_config: TrainConfig) -> None:
    model = tiny_model(tiny_config).eval()
    torch.nn.init.normal_(model.base.out[2].weight)  # type: ignore[arg-type]
    assert model.adapter is not None
    model.adapter.initialize_weights(model.base)
    b = open_data(tiny_config.data, tiny_config.draws).batch(0)
    assert b.tokens is not None
    with torch.no_grad():
        given = b.timesteps, b.tokens, b.subject, b.masks, b.keep_ref, b.keep_motion
        with_adapter = model.predict(b.latents, b.timesteps, model.conditions(*given))
        model.adapter = None
        without = model.predict(b.latents, b.timesteps, model.conditions(*given))
    assert without.abs().max() > 0 and torch.equal(with_adapter, without)


@pytest.mark.parametrize("part", ["ref", "motion"])
def test_subject_only_and_motion_only_adapters_train(tiny_config: TrainConfig, tmp_path: Path, part: str) -> None:
    adapter = dataclasses.replace(tiny_config.adapter, components=(part,), lambda_m=1.0, lambda_l=1.0)
    train(dataclasses.replace(tiny_config, trains=("adapter",), adapter=adapter, steps=1), tmp_path)
    weights = state_of(tmp_path)["weights"]
    assert weights and all(name.startswith(f"adapter.{part}.") for name in weights)
    row = log_of(tmp_path)[0]
    assert row["loss"] == pytest.approx(row["mse"], rel=1e-5)  # Eq. 6 without boxes is the plain loss


def test_the_exported_adapter_reads_back_and_says_where_it_comes_from(tiny_config: TrainConfig, tmp_path: Path) -> None:
    train(dataclasses.replace(tiny_config, steps=1), tmp_path)
    settings, metadata, _ = read_adapter(tmp_path / "export" / files.ADAPTER)
    assert settings == tiny_config.adapter
    assert metadata["base_model.fingerprint"] == files.fingerprint(load_file(tmp_path / "export" / files.BASE))
    assert metadata["training.step"] == "1" and metadata["training.code"]
    assert "endless clips of 2 frames" in metadata["training.data"]
    boxes = json.loads(metadata["training.boxes"])
    assert 0 < boxes["fastest"] < 1 and 0 < boxes["area"][0] < boxes["area"][1] < 1
    noted = json.loads(metadata["training.config"])
    assert noted["lr"] == tiny_config.lr and noted["data"]["atlas"] == "atlas.safetensors"
    with safe_open(tmp_path / "export" / files.BASE, framework="pt") as file:
        assert file.metadata()["training.step"] == "1"


def test_a_loss_that_is_not_finite_stops_before_its_update_and_keeps_the_last_good_state(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    train(tiny_config, tmp_path, stop_after=1)
    before = weights_of(tmp_path)
    data = tiny_config.data
    broken = PatchPCA.load(data.latent)  # type: ignore[attr-defined]
    broken.encode_bias[0] = float("nan")
    broken.save(tmp_path / "broken.safetensors")
    data = dataclasses.replace(data, latent=str(tmp_path / "broken.safetensors"))  # type: ignore[call-arg]
    with pytest.raises(FloatingPointError, match="step 1 is not finite, and its update was not made"):
        train(dataclasses.replace(tiny_config, data=data), tmp_path)
    assert state_of(tmp_path)["step"] == 1 and same(before, weights_of(tmp_path))


def test_a_base_file_in_either_layout_starts_a_training(tiny_config: TrainConfig, tmp_path: Path) -> None:
    from dv2_core.checkpoints import original_to_diffusers

    base = tiny_model(tiny_config).base
    generator = torch.Generator().manual_seed(2)
    for p in base.parameters():
        torch.nn.init.normal_(p, generator=generator)
    weights = {k: v.detach().clone() for k, v in base.state_dict().items()}
    layouts = {
        "prefixed": {f"model.diffusion_model.{k}": v for k, v in weights.items()},
        "diffusers": original_to_diffusers(weights, tiny_config.unet),
    }
    for name, layout in layouts.items():
        path = tmp_path / f"{name}.safetensors"
        files._save({k: v.contiguous() for k, v in layout.items()}, path, {})
        model = tiny_model(dataclasses.replace(tiny_config, init=str(path)))
        files.load_initial(model)
        assert same(weights, dict(model.base.state_dict()))
    torch.save({"state_dict": weights}, tmp_path / "base.pth")
    model = tiny_model(dataclasses.replace(tiny_config, init=str(tmp_path / "base.pth")))
    files.load_initial(model)
    assert same(weights, dict(model.base.state_dict()))


def test_weights_of_another_size_are_refused_with_the_first_that_differs(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    base = tiny_model(tiny_config).base
    files._save({k: v.contiguous() for k, v in base.state_dict().items()}, tmp_path / "base.safetensors", {})
    unet = dataclasses.replace(tiny_config.unet, model_channels=64)
    config = dataclasses.replace(
        tiny_config, init=str(tmp_path / "base.safetensors"), unet=unet,
        adapter=dataclasses.replace(tiny_config.adapter, unet=unet),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"init \(base.safetensors\) cannot be used: .*has shape .*set \[unet\]"):
        files.load_initial(tiny_model(config))

"""Learning rate, optimisers, moving average and the guard against divergence."""

import dataclasses
import math
import sys
from typing import Any

import pytest
import torch

from dv2_core.train.config import TrainConfig
from dv2_core.train.optim import (
    Guard,
    MovingAverage,
    is_matrix,
    learning_rate,
    load_optimizer,
    make_optimizer,
)


def parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "base.middle_block.0.weight": (8, 8), "base.middle_block.0.bias": (8,), "base.out.2.weight": (3, 8, 3, 3),
        "base.input_blocks.0.0.weight": (8, 3, 3, 3), "text.embeddings.token_embedding.weight": (9, 8),
        "adapter.motion.encoder.conv.2.weight": (8, 8, 3, 3),
    }  # fmt: skip
    return {k: torch.nn.Parameter(torch.randn(shape, generator=generator)) for k, shape in shapes.items()}


def with_gradients(learning: dict[str, torch.nn.Parameter], value: float = 1.0) -> None:
    for p in learning.values():
        p.grad = torch.full_like(p, value)


def test_the_rate_rises_stays_and_falls_to_a_twentieth(tiny_config: TrainConfig) -> None:
    config = dataclasses.replace(tiny_config, steps=1000, lr=2.0, warmup=100, decay=0.2)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02) and rates[49] == pytest.approx(1.0)
    assert rates[99:801] == pytest.approx([2.0] * 702)
    assert rates[900] == pytest.approx(2.0 * 0.525) and rates[999] == pytest.approx(0.1, rel=0.01)
    assert all(a >= b for a, b in zip(rates[800:], rates[801:], strict=False))
    constant = dataclasses.replace(config, warmup=0, decay=0.0)
    assert {learning_rate(step, constant) for step in (0, 500, 999)} == {2.0}


def test_muon_takes_the_matrices_of_hidden_layers_and_adamw_the_rest(tiny_config: TrainConfig) -> None:
    learning = parameters()
    matrices = {name for name, p in learning.items() if is_matrix(name, p)}
    assert matrices == {"base.middle_block.0.weight", "adapter.motion.encoder.conv.2.weight"}
    optimizer = make_optimizer(learning, dataclasses.replace(tiny_config, optimizer="muon"))
    with_gradients(learning)
    optimizer.step()
    by_muon = {name for name, p in learning.items() if "momentum_buffer" in optimizer.state[p]}
    assert by_muon == matrices
    assert all("exp_avg_sq" in optimizer.state[learning[name]] for name in learning.keys() - matrices)


def test_an_optimiser_whose_package_is_missing_is_named_with_the_way_out(
    tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match='needs the package bitsandbytes .* or set optimizer = "adamw"'):
        make_optimizer(parameters(), dataclasses.replace(tiny_config, optimizer="adamw8bit"))


def test_loading_an_optimiser_keeps_the_settings_of_the_config(tiny_config: TrainConfig) -> None:
    learning = parameters()
    before = make_optimizer(learning, tiny_config)
    with_gradients(learning)
    before.step()
    changed = dataclasses.replace(tiny_config, lr=7e-5, betas=(0.5, 0.6), weight_decay=0.3)
    after = make_optimizer(learning, changed)
    load_optimizer(after, before.state_dict())
    group = after.param_groups[0]
    assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (7e-5, (0.5, 0.6), 0.3)
    first = next(iter(learning.values()))
    assert torch.equal(after.state[first]["exp_avg"], before.state[first]["exp_avg"])


def test_the_moving_average_is_the_formula_and_lends_its_weights_without_copying() -> None:
    learning = {"w": torch.nn.Parameter(torch.zeros(3))}
    average = MovingAverage(learning, 0.9)
    with torch.no_grad():
        learning["w"].fill_(1.0)
    average.update(10_000)
    assert torch.allclose(average.weights["w"], torch.full((3,), 0.1))
    pointers = learning["w"].data_ptr(), average.weights["w"].data_ptr()
    with average.in_place():
        assert torch.allclose(learning["w"], torch.full((3,), 0.1))
        assert (average.weights["w"].data_ptr(), learning["w"].data_ptr()) == pointers
    assert learning["w"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(RuntimeError, match="inside"), average.in_place():
        raise RuntimeError("inside")
    assert learning["w"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_the_guard_names_the_first_step_that_was_not_finite(tiny_config: TrainConfig, loss: float, norm: float) -> None:
    guard = Guard(make_optimizer(parameters(), tiny_config), torch.device("cpu"))
    guard.see(6, torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(FloatingPointError, match="step 7 is not finite, and its update was not made"):
        guard.see(7, torch.tensor(loss), torch.tensor(norm))


def test_an_optimiser_that_skips_bad_updates_by_itself_keeps_the_last_good_weights(tiny_config: TrainConfig) -> None:
    """What happens on a GPU, where no step waits for the answer."""
    learning = parameters()
    optimizer: Any = make_optimizer(learning, tiny_config)
    guard = Guard(optimizer, torch.device("cpu"))
    guard.skips = True
    with_gradients(learning)
    guard.see(0, torch.tensor(1.0), torch.tensor(1.0))
    optimizer.step()
    good = {name: p.detach().clone() for name, p in learning.items()}
    for step, value in ((1, math.nan), (2, 1.0)):
        with_gradients(learning, value)
        guard.see(step, torch.tensor(value), torch.tensor(value))
        optimizer.step()
    assert all(torch.equal(p, good[name]) for name, p in learning.items())
    with pytest.raises(FloatingPointError, match="step 1 is not finite"):
        guard.check()

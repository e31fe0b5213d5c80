"""On a GPU a step is queued without waiting: Python never looks at a value there, and nothing is brought there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dv2_core.bench.rows import Bench, Size
from dv2_core.model import Adapter, AdapterConfig, UNet3D
from tests.oracles.public import TINY
from tests.waiting import GPU, NeverWaiting, Waited

x, mask = torch.empty(2, 3, device=GPU), torch.empty(3, device=GPU, dtype=torch.bool)
WAITING: dict[str, Callable[[], Any]] = {
    "item": lambda: x[0, 0].item(),
    "float": lambda: float(x.sum()),
    "bool": lambda: bool((x > 0).any()),
    "to the CPU": lambda: x.cpu(),
    "nonzero": lambda: x.nonzero(),
    "a mask as index": lambda: x[:, mask],
    "a list as index": lambda: x[[0, 1]],
    "a list as tensor": lambda: torch.tensor([1.0, 2.0], device=GPU),
    "a number as tensor": lambda: torch.as_tensor(1.0, device="meta"),
    "a tensor of the CPU": lambda: torch.ones(2).to(GPU),
    "an index of the CPU": lambda: x[torch.tensor([0, 1])],
}


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_noticed(name: str) -> None:
    with NeverWaiting(), pytest.raises((Waited, RuntimeError, NotImplementedError)):
        WAITING[name]()


@pytest.fixture(scope="module")
def bench() -> Bench:
    """The benchmark as on a GPU in fp16, with networks that have no values."""
    made = Bench(Size(TINY, frames=2, width=64, height=64, tokens=5), GPU, torch.float16, steps=2)
    made.unet = UNet3D(TINY, dtype=torch.float16, device=GPU).eval()
    made.adapter = Adapter(AdapterConfig(unet=TINY), dtype=torch.float16, device=GPU).eval()
    return made


@pytest.mark.parametrize("adapter", [False, True])
@torch.no_grad()
def test_a_run_of_several_steps_is_queued_without_waiting(bench: Bench, adapter: bool) -> None:
    """The second run: what is made once and the inputs are there."""
    run: Callable[[], Tensor] = (lambda: bench.run(bench.step_adapted)) if adapter else (lambda: bench.run(bench.step))
    first = run()
    with NeverWaiting():
        assert run().shape == first.shape == bench.latents.shape

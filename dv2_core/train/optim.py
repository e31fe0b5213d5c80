"""Learning rate, optimisers, moving average, and the guard that keeps a diverged update out of the weights."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .config import TrainConfig

Learning = dict[str, nn.Parameter]
"""The parameters that learn, by name."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of step 0, 1, ...: linear warm-up, constant, then over the last ``decay`` of the steps a cosine to 5 %.

    A function of the step alone, so a changed ``lr`` or ``steps`` takes effect on resume.
    """
    decaying = config.decay * config.steps
    progress = max(0.0, step - (config.steps - decaying)) / decaying if decaying else 0.0
    return config.lr * min(1.0, (step + 1) / max(1, config.warmup)) * (0.525 + 0.475 * math.cos(math.pi * progress))


def make_optimizer(learning: Learning, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of the parameters that learn, and of no others."""
    common: dict[str, Any] = dict(lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learning.values(), fused=True, **common)
    if config.optimizer == "adamw8bit":
        return _optional("bitsandbytes", "adamw8bit").optim.AdamW8bit(learning.values(), **common)
    by_adamw = {name: not is_matrix(name, p) for name, p in learning.items()}
    groups = [
        {"params": [p for name, p in learning.items() if by_adamw[name] == fallback], "use_fallback": fallback}
        for fallback in (False, True)
    ]
    muon = _optional("timm.optim", "muon").Muon
    return muon([g for g in groups if g["params"]], nesterov=True, fallback_lr_scale=config.adamw_lr_scale, **common)


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes it: weights of hidden layers, neither embeddings nor the first and last convolution."""
    outer = ("embedding" in name, ".input_blocks.0.0." in name, name.endswith("base.out.2.weight"))
    return parameter.ndim >= 2 and not any(outer)


def _optional(module: str, setting: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ValueError(
            f'optimizer is "{setting}", which needs the package {package} ({error}). Install it with '
            f'"pip install {package}", or set optimizer = "adamw".'
        ) from error


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take over moments and counters; the settings stay those of the config, so that changed ones take effect."""
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


class MovingAverage:
    """Exponential moving average of the weights that learn; in its first steps it forgets faster."""

    def __init__(self, learning: Learning, decay: float) -> None:
        self.learning, self.decay = learning, decay
        self.weights = {name: p.detach().clone() for name, p in learning.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        average = get_ema_multi_avg_fn(min(self.decay, (step + 1) / (step + 20)) if self.decay else 0.0)
        average(list(self.weights.values()), [p.detach() for p in self.learning.values()], None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards. Copies nothing."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, p in self.learning.items():
            p.data, self.weights[name] = self.weights[name], p.data


class Guard:
    """Stops a training whose loss or gradient is not finite, before that update enters the weights.

    On a GPU AdamW skips such an update, and every later one, by itself, so that no step has to wait for the answer;
    :meth:`check` asks for it. Everywhere else every step is checked.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.first = torch.full((), math.inf, device=device)  # the first step that was not finite
        self.optimizer: Any = optimizer
        self.skips = device.type == "cuda" and isinstance(optimizer, torch.optim.AdamW)

    def see(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Look at loss and gradient norm of a step, before its update."""
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self.first = torch.minimum(self.first, torch.where(finite, math.inf, float(step)))
        if self.skips:
            self.optimizer.grad_scale, self.optimizer.found_inf = None, (self.first < math.inf).float()
        else:
            self.check()

    def check(self) -> None:
        """Raises FloatingPointError once a step was not finite."""
        first = self.first.item()
        if first < math.inf:
            raise FloatingPointError(
                f"loss or gradient of step {int(first)} is not finite, and its update was not made. The last good "
                "state is the newest file in checkpoints/. Lower lr or grad_clip, or look at the clips; then start "
                "the same command again."
            )

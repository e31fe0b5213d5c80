"""``train --dry-run``: sizes, work, memory and time of a training, and whether its files are there. Writes nothing."""

from __future__ import annotations

import dataclasses
import time
import weakref
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from . import files
from .config import TrainConfig
from .data import Batch, open_data
from .data_config import MiniWorldConfig
from .loop import check_data, vocabulary_size
from .model import TrainingModel
from .optim import is_matrix, make_optimizer

GIB = 2**30
WORDS, TEXT_TOKENS = 1000, 77  # of data that cannot be opened
CPU_LIMIT = 1e12  # FLOPs of a pass that a CPU is asked to run for the time estimate


class Meter(TorchDispatchMode):
    """Counts what is done inside: FLOPs, and the bytes of the tensors made there that are alive (at most: ``peak``).

    A view of a weight makes nothing: what an operation is given was there, or has been counted. FLOPs by torch's
    formulas; its FlopCounterMode is not used because it keeps alive what it counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known | given:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())
        return out

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Work:
    """Of one process: FLOPs of a forward and backward pass (a multiply-add is two), and the bytes that it takes."""

    flops: int
    activations: int


def dry_run(config: TrainConfig, processes: int = 1) -> str:
    """The text that the command prints. Raises ValueError for a config whose parts do not fit one another."""
    problems = []
    words, tokens, data = None, TEXT_TOKENS, None
    if isinstance(config.data, MiniWorldConfig):
        words, tokens = WORDS, config.data.text_tokens
    try:
        data = open_data(config.data, config.draws)
        words, tokens = vocabulary_size(data.words), data.size.text_tokens
        check_data(config, data)
    except (ValueError, OSError) as error:
        problems.append(str(error))
    try:
        files.check_initial(config)
    except ValueError as error:
        problems.append(str(error))
    accumulate = config.accumulate(processes)
    plain, recomputed = (work(config, words, tokens, recompute) for recompute in (False, True))
    with FakeTensorMode():
        model = TrainingModel(config, words, torch.device("cpu"), fused_attention)
        model.lower_frozen()
    chosen = recomputed if config.gradient_checkpointing else plain
    lines = [
        *count_lines(config, model, tokens),
        *step_lines(config, processes, accumulate),
        f"work of a step: {chosen.flops * accumulate * processes / 1e12:.3g} TFLOP "
        f"({chosen.flops / 1e12:.3g} of one pass of {config.batch} clips)",
        *memory_lines(config, model, plain, recomputed),
        time_line(config, model, words, tokens, accumulate, chosen),
        "data: " + (data.size.description if data else "not checked"),
    ]
    lines += [f"PROBLEM: {problem}" for problem in problems] or ["every file is there"]
    return "\n".join(lines)


def count_lines(config: TrainConfig, model: TrainingModel, tokens: int) -> list[str]:
    parts: dict[str, nn.Module | None] = {"base": model.base, "text encoder": model.text}
    if model.adapter is not None:
        motion = model.adapter.motion
        parts |= {
            "reference attention": model.adapter.ref,
            "motion encoder": None if motion is None else motion.encoder,
            "motion control": None if motion is None else motion.controlnet,
        }
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
    channels, rows, columns = latent_shape(config)
    frames = config.data.num_frames
    return [
        "parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        f"learning: {sum(p.numel() for p in model.learning.values()):,} ({', '.join(config.trains)})",
        f"a clip: {frames} frames, latents {channels}x{rows}x{columns}, {frames * rows * columns:,} positions, "
        f"{tokens} text tokens",
    ]


def step_lines(config: TrainConfig, processes: int, accumulate: int) -> list[str]:
    per_step = config.batch * processes * accumulate
    return [
        f"a step: {per_step} clips = {processes} processes x {accumulate} passes x batch {config.batch}",
        f"in all: {config.steps:,} steps, {config.steps * per_step:,} clips",
    ]


def memory_lines(config: TrainConfig, model: TrainingModel, plain: Work, recomputed: Work) -> list[str]:
    learning = model.learning
    count = sum(p.numel() for p in learning.values())
    parts = {
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": 4 * count,
        "optimiser": sum(p.numel() * moment_bytes(name, p, config) for name, p in learning.items()),
        "average": 4 * count,
    }
    fixed = sum(parts.values())
    return [
        "memory of a process: " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
        + f" = {fixed / GIB:.2f} GiB",
        f"  with a pass of {config.batch} clips: {(fixed + plain.activations) / GIB:.2f} GiB, with "
        f"gradient_checkpointing {(fixed + recomputed.activations) / GIB:.2f} GiB (estimates; this config: "
        f"{'with' if config.gradient_checkpointing else 'without'})",
    ]  # fmt: skip


def moment_bytes(name: str, parameter: Tensor, config: TrainConfig) -> int:
    """Bytes of optimiser state per number of a parameter."""
    if config.optimizer == "adamw8bit":
        return 2
    return 4 if config.optimizer == "muon" and is_matrix(name, parameter) else 8


def time_line(config: TrainConfig, model: TrainingModel, words: int | None, tokens: int, accumulate: int,
              chosen: Work) -> str:  # fmt: skip
    """Seconds of a step, from two real passes with random weights where this machine can run them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available
    needed = chosen.activations + sum(p.numel() * (16 if p.requires_grad else 4) for p in model.parameters())
    if needed > free or (device.type == "cpu" and chosen.flops > CPU_LIMIT):
        return "time: not measured, one pass is too much for this machine"
    model = TrainingModel(config, words, device)
    model.lower_frozen()
    model.to(device)
    optimizer, batch = make_optimizer(model.learning, config), random_batch(config, words, tokens).to(device)
    seconds = [0.0, 0.0]
    for _ in range(2):  # the first pass warms up
        started = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
            loss = model(batch)[0]
        loss.backward()
        synchronize(device)
        passed = time.monotonic()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(device)
        seconds = [passed - started, time.monotonic() - passed]
    step = seconds[0] * accumulate + seconds[1]
    return (
        f"time on this machine's {device.type}: {step:.3g} s a step, {step * config.steps / 3600:.3g} hours in all, "
        "without waiting for data, validation and samples"
    )


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def work(config: TrainConfig, words: int | None, tokens: int, recompute: bool) -> Work:
    """What a pass takes, counted on tensors without values."""
    config = dataclasses.replace(config, gradient_checkpointing=recompute)
    with FakeTensorMode():
        model = TrainingModel(config, words, torch.device("cpu"), fused_attention)
        model.lower_frozen()
        for p in model.learning.values():
            p.grad = torch.zeros_like(p)  # counted with the weights
        batch = random_batch(config, words, tokens)
        with Meter() as meter:
            with torch.autocast("cpu", torch.bfloat16, enabled=config.mixed_precision == "bf16"):
                loss = model(batch)[0]
            loss.backward()
    return Work(meter.flops, meter.peak)


def random_batch(config: TrainConfig, words: int | None, tokens: int) -> Batch:
    latent, (width, height) = latent_shape(config), config.data.frame_size
    clips, frames = config.batch, config.batch * config.data.num_frames
    text: dict[str, Any] = (
        {"context": torch.randn(clips, tokens, config.unet.context_dim)}
        if words is None
        else {"tokens": torch.ones(clips, tokens, dtype=torch.long)}
    )
    return Batch(
        latents=torch.randn(frames, *latent), masks=torch.ones(frames, 1, height, width),
        subject=torch.randn(clips, *latent), noise=torch.randn(frames, *latent),
        timesteps=torch.full((clips,), 500), keep_ref=torch.ones(clips), keep_motion=torch.ones(clips), **text,
    )  # fmt: skip


def latent_shape(config: TrainConfig) -> tuple[int, int, int]:
    width, height = config.data.frame_size
    return config.unet.in_channels, height // 8, width // 8


def fused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """A GPU's fused attention, for counting: it keeps no matrix of weights."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # [B, heads, N, d]
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0].transpose(1, 2).flatten(2)

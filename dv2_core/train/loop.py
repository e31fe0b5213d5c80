"""The training loop: ``python -m dv2_core train CONFIG --out DIR``, also under ``torchrun`` on several processes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from .config import TrainConfig
from .data import Batches
from .files import export, load_checkpoint, load_exported, save_checkpoint
from .model import TrainingModel
from .preview import sample_sheet


def train(config: TrainConfig, out: Path, stop_after: int | None = None) -> None:
    """Train for ``config.steps`` steps, resuming from ``out`` if it holds a checkpoint.

    Args:
        out: receives checkpoint.pt, log.jsonl, previews/ and export/.
        stop_after: end early at this step with a checkpoint; the schedule stays that of ``steps``.

    Raises:
        FloatingPointError: the loss is not finite; the last checkpoint is kept.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision, gradient_accumulation_steps=config.accumulate)
    torch.manual_seed(config.seed)
    batches = Batches(config)
    model = TrainingModel(config, len(batches.tokenizer), accelerator.device)
    if config.init:
        load_exported(model, Path(config.init))
    elif model.adapter is not None:
        model.adapter.initialize_weights(model.base)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(learning.values(), config.lr, config.betas, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, config))
    ema = {name: p.detach().clone() for name, p in learning.items()}
    start, checkpoint = 0, out / "checkpoint.pt"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        with torch.no_grad():
            for name, value in state["weights"].items():
                learning[name].copy_(value)
        ema = state["ema"]
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        start = state["step"]
    ema = {name: value.to(accelerator.device) for name, value in ema.items()}
    prepared, optimizer = accelerator.prepare(model, optimizer)
    main = accelerator.is_main_process
    if main:
        out.mkdir(parents=True, exist_ok=True)
        truncate_log(out / "log.jsonl", start)

    def save(step: int) -> None:
        weights = {name: p.detach() for name, p in learning.items()}
        save_checkpoint(checkpoint, {"step": step, "weights": weights, "ema": ema, "schedule": schedule.state_dict(),
                                     "optimizer": optimizer.state_dict()})  # fmt: skip

    end = config.steps if stop_after is None else min(stop_after, config.steps)
    saved_at, started = time.monotonic(), time.monotonic()
    bar = tqdm(total=config.steps, initial=start, disable=not main, unit="step", mininterval=5)
    norm: Tensor | float | None = 0.0
    for step in range(start, end):
        for micro in range(config.accumulate):
            index = step * config.accumulate + micro
            batch = batches(index, accelerator.process_index, accelerator.num_processes).to(accelerator.device)
            with accelerator.accumulate(prepared):
                loss, figures = prepared(batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(learning.values(), config.grad_clip)
                optimizer.step()
                optimizer.zero_grad()
        schedule.step()
        with torch.no_grad():
            decay = min(config.ema, (step + 1) / (step + 20))
            for name, p in learning.items():
                ema[name].lerp_(p.detach(), 1 - decay)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {step}; the last good state is {checkpoint}. Lower lr or grad_clip."
            )
        if main:
            bar.update()
            if step % 10 == 0:
                seconds = round(time.monotonic() - started, 1)
                row = {"step": step, "loss": loss.item(), "norm": float(norm or 0.0), "lr": schedule.get_last_lr()[0],
                       **{k: float(v) for k, v in figures.items()}, "seconds": seconds}  # fmt: skip
                with (out / "log.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                bar.set_postfix(loss=f"{loss.item():.3f}")
            last = step + 1 == end
            if last or time.monotonic() - saved_at > config.save_minutes * 60:
                save(step + 1)
                saved_at = time.monotonic()
            if last or (step + 1) % config.preview_steps == 0:
                with averaged(learning, ema):
                    export(model, batches.tokenizer.words, out / "export", step + 1)
                    sample_sheet(model, batches, out / "previews" / f"{step + 1:06d}.png")
    bar.close()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Factor of the rate: linear warm-up, constant for the first half, then cosine to 5 %."""
    progress = max(0.0, 2 * step / config.steps - 1)
    return min(1.0, (step + 1) / config.warmup) * (0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)


@contextmanager
def averaged(learning: dict[str, torch.nn.Parameter], ema: dict[str, Tensor]) -> Iterator[None]:
    """Put the averaged weights in place, and the trained ones back afterwards."""
    kept = {name: p.detach().clone() for name, p in learning.items()}
    with torch.no_grad():
        for name, p in learning.items():
            p.copy_(ema[name])
        try:
            yield
        finally:
            for name, p in learning.items():
                p.copy_(kept[name])


def truncate_log(path: Path, step: int) -> None:
    """Drop the rows after the checkpoint that is resumed, so that no step is logged twice."""
    if path.exists():
        rows = [line for line in path.read_text().splitlines() if json.loads(line)["step"] < step]
        path.write_text("".join(row + "\n" for row in rows))

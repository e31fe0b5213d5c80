"""The training loop: ``python -m dv2_core train CONFIG --out DIR``, alone or under ``accelerate launch``."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env, set_seed
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from ..world.text import SPECIAL_WORDS
from . import files
from .box_range import box_range
from .checkpoint import Checkpoints, check_fits
from .config import TrainConfig
from .data import Batch, Data, open_data
from .data_mini import MiniWorld
from .directions import Lesson, learn_words
from .log import RunLog
from .model import TrainingModel
from .optim import Guard, MovingAverage, learning_rate, load_optimizer, make_optimizer, set_rate
from .report import write_report
from .samples import write_samples
from .stop import StopRequest
from .validate import validate


def train(config: TrainConfig, out: Path, stop_after: int | None = None) -> None:
    """Train for ``config.steps`` steps, going on from the newest checkpoint in ``out`` if there is one.

    Args:
        out: receives checkpoints/, log.jsonl, tensorboard/, samples/, export/ and report.html.
        stop_after: end early at this step, with a checkpoint; the schedule stays that of ``steps``.

    Raises:
        ValueError: config, files and checkpoint do not fit one another, or another training runs in ``out``.
        FloatingPointError: loss or gradient is not finite; the update was not made.
        SystemExit: 130 after Ctrl-C, 143 after SIGTERM, with the state saved.
    """
    with only_training(out, start_processes().is_main_process):
        optimise(Run(config, out), stop_after)


def start_processes() -> PartialState:
    """What accelerate knows of the processes of this training; the first call makes them meet."""
    # The others wait while one draws samples.
    # Without an accelerator accelerate has to be told, or each of several processes would train alone.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=timedelta(hours=2))


@contextmanager
def only_training(out: Path, main: bool) -> Iterator[None]:
    """Hold ``out`` for one training; of its processes the main one does. Raises ValueError if another holds it."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        if main:
            lock.acquire()
    except Timeout:
        raise ValueError(
            f"another training runs in {out}; wait for its end, or give another --out. If it should be one training of "
            "several processes, they did not meet: `accelerate launch --cpu` starts single ones, `torchrun` does not."
        ) from None
    try:
        yield
    finally:
        lock.release()


def optimise(run: Run, stop_after: int | None) -> None:
    """Every step that is left, and what is due after each."""
    config = run.config
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    accumulate, batches = config.accumulate(run.accelerator.num_processes), run.batches()
    bar = tqdm(total=config.steps, initial=run.step, disable=not run.main, unit="step", mininterval=2)
    norm: Tensor | float | None = None
    with StopRequest() as stop:
        while run.step < end and not run.agree_to_stop(stop):
            # Random numbers are a function of the step, so nothing about them has to be kept for a resume.
            set_seed((config.seed * 1_000_003 + run.step) % 2**31, device_specific=True)
            set_rate(run.optimizer, learning_rate(run.step, config))
            figures: dict[str, Tensor] = {}
            for _ in range(accumulate):
                with run.accelerator.accumulate(run.network):
                    loss, parts = run.network(next(batches))
                    run.accelerator.backward(loss)
                    for name, value in {"loss": loss.detach(), **parts}.items():
                        figures[name] = figures.get(name, 0.0) + value / accumulate
                    if run.accelerator.sync_gradients:
                        norm = run.accelerator.clip_grad_norm_(run.learning.values(), config.grad_clip)
                        run.guard.see(run.step, figures["loss"], torch.as_tensor(norm))
                    run.optimizer.step()
                    run.optimizer.zero_grad()
            run.average.update(run.step)
            run.step += 1
            bar.update()
            run.after_step(figures, norm, last=run.step == end)
    bar.close()
    run.finish()


class Run:
    """What a training is made of, and what happens between its steps."""

    def __init__(self, config: TrainConfig, out: Path) -> None:
        self.config, self.out = config, out
        processes = start_processes()
        # As a plug-in, because a number would yield to what the launcher was once configured with.
        accumulate = GradientAccumulationPlugin(config.accumulate(processes.num_processes), sync_with_dataloader=False)
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_plugin=accumulate,
            cpu=processes.device == torch.device("cpu"),
        )
        self.main = self.accelerator.is_main_process
        set_seed(config.seed)
        files.check_initial(config)
        self.data: Data = open_data(config.data, config.draws)
        self.data.prepare(self.accelerator.process_index, self.accelerator.num_processes, self.accelerator.device)
        self.accelerator.wait_for_everyone()
        check_data(config, self.data)
        words = self.data.words
        self.model = TrainingModel(config, vocabulary_size(words), self.accelerator.device)
        self.base_fingerprint = files.load_initial(self.model)
        self.model.lower_frozen()
        self.model.to(self.accelerator.device)
        self.learning = self.model.learning
        lesson = None
        if config.directions:  # before a resume, since its teacher is the model as it was
            assert isinstance(self.data, MiniWorld)
            lesson = Lesson(self.model, self.data, self.accelerator.num_processes)
        optimizer = make_optimizer(self.learning, config)
        self.average = MovingAverage(self.learning, config.ema)
        self.guard = Guard(optimizer, self.accelerator.device)
        self.checkpoints = Checkpoints(out / "checkpoints")
        self.step, self.seconds, self.stopped_by = 0, 0.0, 0
        state = self.checkpoints.latest()
        if state is not None:
            self.resume(state, optimizer)
        self.network, self.optimizer = self.accelerator.prepare(lesson or self.model, optimizer)
        self.log = RunLog(out, -1 if state is None else self.step) if self.main else None
        if self.main:
            (out / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n")
        self.boxes: dict[str, Any] = {}  # what the data's boxes are like; found out at the first export
        self.exported_step, self.saved_step = self.step, self.step if state is not None else -1
        self.saved_at = time.monotonic()
        self.logged_step, self.logged_at = self.step, time.monotonic()
        if lesson is not None and state is None:
            learn_words(lesson, self.accelerator, self.log)
            self.average = MovingAverage(self.learning, config.ema)
            self.logged_at = time.monotonic()
            self.save()

    def resume(self, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Take over a checkpoint. Raises ValueError if it belongs to another training."""
        learning, config = self.learning, self.config
        check_fits(state["weights"], learning)
        if state["optimizer_name"] != config.optimizer:
            raise ValueError(
                f"the checkpoint was made with optimizer {state['optimizer_name']!r} and the config says "
                f"{config.optimizer!r}, whose state it lacks. Use another --out, or the optimiser of the checkpoint."
            )
        if "base" not in config.trains and state["base_fingerprint"] != self.base_fingerprint:
            raise ValueError(
                f"the checkpoint was trained on another frozen base than init, {config.init!r}. Use another --out, or "
                "the base of the checkpoint."
            )
        with torch.no_grad():
            for name, p in learning.items():
                p.copy_(state["weights"][name])
                self.average.weights[name].copy_(state["ema"][name])
        load_optimizer(optimizer, state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        if self.main:
            print(f"going on from step {self.step} of {config.steps}", flush=True)

    def batches(self) -> Iterator[Batch]:
        """This process's micro-batches from the current step on, on its device."""
        accelerator = self.accelerator
        start = self.step * self.config.accumulate(accelerator.num_processes)
        for batch in self.data.batches(start, accelerator.process_index, accelerator.num_processes):
            yield batch.to(accelerator.device)

    def agree_to_stop(self, request: StopRequest) -> bool:
        """Whether any process was asked to stop. Several processes ask one another where they log anyway."""
        self.stopped_by = request.signal
        if self.accelerator.num_processes > 1:
            if self.step % self.config.log_steps:
                return False
            asked: Tensor = self.accelerator.gather(torch.tensor([request.signal], device=self.accelerator.device))  # type: ignore[assignment]
            self.stopped_by = int(asked.max())
        return self.stopped_by > 0

    def after_step(self, figures: dict[str, Tensor], norm: Tensor | float | None, last: bool) -> None:
        """Log, validate, draw samples and save, each where it is due."""
        config, step = self.config, self.step
        if step % config.log_steps == 0 or last:
            self.write_figures(figures, norm)
        if due(step, config.validate_steps, last):
            self.validate()
        if due(step, config.sample_steps, False) or last:
            self.export()
        minutes = (time.monotonic() - self.saved_at) / 60
        if due(step, config.save_steps, False) or last or 0 < config.save_minutes < minutes:
            self.save()
        if due(step, config.validate_steps, last) or due(step, config.sample_steps, last):
            self.report()

    def write_figures(self, figures: dict[str, Tensor], norm: Tensor | float | None) -> None:
        self.guard.check()
        means: Tensor = self.accelerator.reduce(torch.stack(list(figures.values())), "mean")  # type: ignore[assignment]
        if self.log is None:
            return
        now, steps = time.monotonic(), self.step - self.logged_step
        clips = steps * self.config.batch * self.config.accumulate(self.accelerator.num_processes)
        speed = clips * self.accelerator.num_processes / max(now - self.logged_at, 1e-9)
        self.seconds += now - self.logged_at
        self.logged_step, self.logged_at = self.step, now
        row = dict(zip(figures, means.tolist(), strict=True))
        rate = learning_rate(self.step - 1, self.config)
        self.log.write("train", self.step, **row, norm=float(norm or 0.0), lr=rate, clips_per_second=round(speed, 3),
                       seconds=round(self.seconds, 1))  # fmt: skip

    def validate(self) -> None:
        with self.aside():
            found = validate(self.model, self.data, self.accelerator)
        if self.log is not None:
            self.log.write("validation", self.step, **found)

    def export(self) -> None:
        """The averaged weights as files for the nodes and, if the config wants them, sample videos made with them."""
        self.exported_step = self.step
        if self.log is None:
            return
        if self.config.has_adapter and not self.boxes:
            self.boxes = box_range(self.data, self.config.data.num_frames)
        notes = files.describe(self.config, self.step, self.data.size.description, self.boxes)
        with self.aside():
            files.export(self.model, self.out / "export", self.base_fingerprint, self.data.words, notes)
            if self.config.sample_steps:
                autocast = self.accelerator.autocast()
                sheet = write_samples(self.model, self.data, self.out / "samples", self.step, autocast)
                self.log.write("samples", self.step, file=f"samples/{sheet.name}")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Work with the averaged weights that leaves no memory behind and does not count as training time."""
        started, was_training = time.monotonic(), self.model.training
        self.model.eval()
        with self.average.in_place():
            yield
        self.model.train(was_training)
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        self.logged_at += time.monotonic() - started

    def save(self) -> None:
        """A checkpoint; only of weights that are known to be good."""
        self.guard.check()
        self.saved_step, self.saved_at = self.step, time.monotonic()
        if not self.main:
            return
        self.checkpoints.save(self.step, {
            "weights": {name: p.detach() for name, p in self.learning.items()},
            "ema": self.average.weights,
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": self.config.optimizer,
            "base_fingerprint": self.base_fingerprint,
            "seconds": self.seconds,
        })  # fmt: skip

    def report(self) -> None:
        if self.main:
            write_report([self.out])

    def finish(self) -> None:
        """After the last step, or the one in which a signal came: save what is not saved yet."""
        if self.saved_step != self.step:
            self.save()
        if self.exported_step != self.step:
            self.export()
        if self.log is not None:
            self.log.close()
        if self.stopped_by:
            if self.main:
                name = signal.Signals(self.stopped_by).name
                print(f"{name}: stopped after step {self.step} of {self.config.steps}, which is saved in {self.out}. "
                      "The same command goes on from there.", flush=True)  # fmt: skip
            raise SystemExit(128 + self.stopped_by)


def due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def vocabulary_size(words: list[str] | None) -> int | None:
    return None if words is None else len(SPECIAL_WORDS) + len(words)


def check_data(config: TrainConfig, data: Data) -> None:
    """Raises ValueError if the network does not take what the data gives."""
    channels, width = data.size.latent[0], data.size.context_dim
    if channels != config.unet.in_channels:
        raise ValueError(f"the data's latents have {channels} channels and unet.in_channels is "
                         f"{config.unet.in_channels}. Use the autoencoder of this base, or change [unet].")  # fmt: skip
    own = config.text.width if width is None else width
    if own != config.unet.context_dim:
        raise ValueError(f"the text has {own} numbers per token and unet.context_dim is {config.unet.context_dim}. "
                         "Use the text encoder of this base, or change [unet] or [text].")  # fmt: skip

"""Teach the miniature the direction word: ``python -m dv2_core.train.directions CONFIG --out DIR``.

Plain training does not find the word: left or right turns the sign of a pattern of place *and* time, and alone none of
the three predicts anything (docs/decisions.md has the attempts). With zero terminal SNR the input of the last timestep
is noise alone, so the best prediction there is known without sampling: the mean clip of the caption. That makes a
lesson free of noise: the same noise and caption with every direction, and as target what the model said before plus
the word's mean clip, amplified. The lesson alone comes first, in two parts: one way of each axis for all words, until
the pattern of place and time is there, then each word its own, with one way weighing more, so that the pattern stays
while the words learn to turn it. Afterwards the training of all parts goes on with the lesson beside it, at timesteps
near the last one too, amplified less and less.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from ..diffusion import signal_and_noise
from ..diffusion.schedule import TRAIN_STEPS
from . import files
from .box_range import box_range
from .config import TrainConfig
from .data import Batch
from .data_config import MiniWorldConfig
from .data_mini import MiniWorld
from .log import RunLog
from .model import TrainingModel
from .optim import MovingAverage, learning_rate, make_optimizer, set_rate

OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up"}
WORDS = tuple(OPPOSITES)
USUAL = [1, 1, 3, 3]  # right and down, the ways of both words of an axis in the lesson's first part
CLIPS = 6_400  # whose means are taken
AMPLIFIED, AMPLIFIED_LAST = 45.0, 4.0  # how many times its natural size a word's mean clip is asked for
PATTERN_STEPS, WORD_STEPS, UNUSUAL_WEIGHT = 60, 400, 0.35  # of the lesson alone; WORD_STEPS at most
LEARNED = 0.5  # of what is asked for, and the lesson alone ends
LESSON_RATE = 1e-3
NEAR = 800  # beside the whole training half of the lesson is at timesteps from here on


def with_direction(caption: str, word: str) -> str:
    """The caption of the mini-world with another direction."""
    return re.sub(r"moving (left|right|up|down)|standing still", f"moving {word}", caption)


def mean_ways(data: MiniWorld, clips: int) -> Tensor:
    """What tells each word's mean clip from that of its opposite, half their difference: [4, F, C, h, w] as in WORDS.

    A clip played backwards is a clip of the opposite word and as likely, so both count."""
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(WORDS, 0)
    for number in range(clips):
        clip = data.world.clip(number)
        if clip.direction not in OPPOSITES:
            continue
        latents = data.latent.encode(clip.frames)  # [F, C, h, w]
        for word, played in ((clip.direction, latents), (OPPOSITES[clip.direction], latents.flip(0))):
            sums[word] = sums.get(word, torch.zeros(())) + played
            counts[word] += 1
    if missing := [word for word in WORDS if not counts[word]]:
        raise ValueError(f"None of the {clips} clips goes {' or '.join(missing)}; take the mean of more clips.")
    means = {word: sums[word] / counts[word] for word in WORDS}
    return torch.stack([(means[word] - means[OPPOSITES[word]]) / 2 for word in WORDS])


class Lesson(nn.Module):
    """The model with the lesson as ``forward``, alone or beside the loss of a batch.

    Its teacher is a copy of the model as it was, whose answers are kept but for the word."""

    def __init__(self, model: TrainingModel, data: MiniWorld, ways: Tensor, seed: int) -> None:
        super().__init__()
        self.model, self.data, self.ways, self.seed = model, data, ways, seed
        self.before = [copy.deepcopy(model).eval().requires_grad_(False)]  # in a list: no part of this module

    def forward(self, number: int, factor: float, captions: int, near: bool, first: bool = False,
                batch: Batch | None = None) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The whole loss, its part without the lesson, and how much of each word's way is shown, [4], 1 being natural.

        number: of the lesson; captions and noise follow from it. near: half of it at timesteps NEAR..998. first: the
        usual way for all words."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        clips = [self.data.world.clip(number * captions + n) for n in range(captions)]
        clean = self.data.latent.encode(torch.cat([clip.frames for clip in clips])).unflatten(0, (captions, -1))
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.full((captions,), TRAIN_STEPS - 1)
        if near:
            earlier = torch.randint(NEAR, TRAIN_STEPS - 1, (captions,), generator=generator)
            times = torch.where(torch.rand(captions, generator=generator) < 0.5, times, earlier)
        alpha, sigma = (s.view(-1, 1, 1, 1, 1) for s in signal_and_noise(times, "v_zsnr"))
        noisy = alpha * clean + sigma * noise
        with torch.no_grad():
            kept = self.say(self.before[0], noisy, times, [clip.caption for clip in clips])
        asked = [with_direction(clip.caption, word) for clip in clips for word in WORDS]
        every = len(WORDS)
        said = self.say(self.model, noisy.repeat_interleave(every, 0), times.repeat_interleave(every), asked)
        # v = alpha noise - sigma x_0, so what the words add to x_0 is: [captions, 4, F, C, h, w]
        added = (kept[:, None] - said.unflatten(0, (captions, every))) / sigma[:, None]
        goal = factor * (self.ways[USUAL] if first else self.ways)
        weight = torch.tensor([UNUSUAL_WEIGHT, 1.0] * 2).view(1, -1, 1, 1, 1, 1) if batch is None else 1.0
        loss = ((added - goal).square() * sigma[:, None].square() * weight).mean()
        shown = (added.detach().mean(0) * self.ways).flatten(1).sum(1) / self.ways.square().flatten(1).sum(1)
        if batch is None:
            return loss, loss.detach(), shown
        plain, _ = self.model(batch)
        return plain + loss, plain.detach(), shown

    def say(self, model: TrainingModel, noisy: Tensor, times: Tensor, captions: list[str]) -> Tensor:
        """v [B, F, C, h, w] for noisy [B, F, C, h, w] at times [B], by text alone."""
        assert model.text is not None
        context = model.text(self.data.tokens(captions)).last_hidden_state
        f = noisy.shape[1]
        return model.base(noisy.flatten(0, 1), times, context, f).float().unflatten(0, (-1, f))


def teach(config: TrainConfig, out: Path) -> None:
    """The lesson alone, then ``config``'s training with it; ``out`` receives log.jsonl and export/.

    Under ``accelerate launch`` every process has the same lesson alone, and they share the rest. Raises ValueError if
    the config is not that of the whole miniature with zero terminal SNR, or if the words are not learned in
    WORD_STEPS."""
    if not isinstance(config.data, MiniWorldConfig) or config.adapter.prediction != "v_zsnr" or len(config.trains) != 3:
        raise ValueError(
            'The direction word is taught to the miniature: prediction "v_zsnr", data of kind "mini-world" and '
            'trains = ["base", "text", "adapter"]. The preset mini-directions says so.'
        )
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=True)
    files.check_initial(config)
    data = MiniWorld(config.data, config.draws)
    torch.manual_seed(config.seed)
    model = TrainingModel(config, len(data.tokenizer), accelerator.device)
    files.load_initial(model)
    lesson = Lesson(model, data, mean_ways(data, CLIPS), config.seed)
    log = RunLog(out, 0) if accelerator.is_main_process else None
    learn_words(lesson, accelerator, log)

    optimizer, average = make_optimizer(model.learning, config), MovingAverage(model.learning, config.ema)
    network, prepared = accelerator.prepare(lesson, optimizer)
    processes, index = accelerator.num_processes, accelerator.process_index
    passes, batches = config.accumulate(processes), data.batches(0, index, processes)
    bar = tqdm(range(config.steps), unit="step", mininterval=2, disable=log is None)
    for step in bar:
        factor = AMPLIFIED_LAST * (AMPLIFIED / AMPLIFIED_LAST) ** max(0.0, 1 - 2 * step / config.steps)
        set_rate(prepared, learning_rate(step, config))
        for turn in range(passes):
            number = 10_000 + (step * passes + turn) * processes + index
            with accelerator.autocast():
                loss, plain, shown = network(number, factor, 1, near=True, batch=next(batches))
            accelerator.backward(loss / passes)
        accelerator.clip_grad_norm_(model.learning.values(), config.grad_clip)
        prepared.step()
        prepared.zero_grad()
        average.update(step)
        note(log, bar, "train", step + 1, config.log_steps, factor, plain, shown)
    if log is not None:
        log.close()
        notes = files.describe(config, config.steps, data.size.description, box_range(data, config.data.num_frames))
        with average.in_place():
            files.export(model, out / "export", "", data.words, notes)
    accelerator.end_training()


def learn_words(lesson: Lesson, accelerator: Accelerator, log: RunLog | None) -> None:
    """The lesson alone: the pattern of place and time, then the words that turn it."""
    learning = {name: p for name, p in lesson.model.learning.items() if not name.startswith("adapter.")}
    optimizer = torch.optim.AdamW(learning.values(), lr=LESSON_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    bar = tqdm(range(PATTERN_STEPS + WORD_STEPS), unit="step", mininterval=2, disable=log is None)
    for step in bar:
        set_rate(optimizer, LESSON_RATE * min(1.0, (step + 1) / 10))
        with accelerator.autocast():
            loss, _, shown = lesson(step, AMPLIFIED, 2, near=False, first=step < PATTERN_STEPS)
        loss.backward()
        nn.utils.clip_grad_norm_(learning.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        learned = step >= PATTERN_STEPS and shown.min() > LEARNED * AMPLIFIED
        note(log, bar, "lesson", step + 1, 1 if learned else 10, AMPLIFIED, loss, shown)
        if learned:
            bar.close()
            return
    raise ValueError(f"After {PATTERN_STEPS + WORD_STEPS} steps the words do not turn the pattern; try another seed.")


def note(log: RunLog | None, bar: tqdm, kind: str, step: int, every: int, factor: float, loss: Tensor,
         shown: Tensor) -> None:  # fmt: skip
    """A row of the log: "lesson" while it is alone, then "train" with the loss of the whole training."""
    if log is not None and step % every == 0:
        row = {f"word_{word}": round(share, 2) for word, share in zip(WORDS, shown.tolist(), strict=True)}
        log.write(kind, step, loss=round(loss.item(), 5), factor=round(factor, 2), **row)
        bar.set_postfix_str(f"loss {loss.item():.3f}, words " + " ".join(f"{share:.1f}" for share in shown.tolist()))


def main(argv: list[str]) -> None:
    about = "Teach the miniature the direction word."
    parser = argparse.ArgumentParser(prog="python -m dv2_core.train.directions", description=about)
    parser.add_argument("config", help="a .toml file, or the preset mini-directions")
    parser.add_argument("--out", type=Path, required=True, help="folder for log.jsonl and export/")
    arguments = parser.parse_args(argv)
    try:
        teach(TrainConfig.load(arguments.config), arguments.out)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Teach the miniature the direction word, for a training with ``directions = true``.

Plain training does not find the word: left or right turns the sign of a pattern of place *and* time, and alone none of
the three predicts anything (docs/decisions.md has the attempts). With zero terminal SNR the input of the last timestep
is noise alone, so the best prediction there is known without sampling: the mean clip of the caption. That makes a
lesson free of noise: the same noise and caption with every direction, and as target what the model said before plus
the word's mean clip, amplified. The lesson alone comes first, in two parts: one way of each axis for all words, until
the pattern of place and time is there, then each word its own, with one way weighing more, so that the pattern stays
while the words learn to turn it. Afterwards the training of all parts goes on with the lesson beside it, at timesteps
near the last one too, amplified less and less, half of them with a subject image.
"""

from __future__ import annotations

import copy
import re

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from ..diffusion import signal_and_noise
from ..diffusion.schedule import TRAIN_STEPS
from .data import Batch
from .data_mini import MiniWorld
from .log import RunLog
from .model import TrainingModel
from .optim import set_rate

OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up"}
WORDS = tuple(OPPOSITES)
USUAL = [1, 1, 3, 3]  # right and down, the ways of both words of an axis in the lesson's first part
CLIPS = 6_400  # whose means are taken
AMPLIFIED, AMPLIFIED_LAST = 45.0, 4.0  # how many times its natural size a word's mean clip is asked for
PATTERN_STEPS, WORD_STEPS, UNUSUAL_WEIGHT = 60, 400, 0.35  # of the lesson alone; WORD_STEPS at most
LEARNED = 0.5  # of what is asked for, and the lesson alone ends
LESSON_RATE = 1e-3
WITH_SUBJECT = 0.5  # of the lessons beside the whole training keep the subject, so that the word is heard beside it too
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
    """The model with the lesson beside the loss of a batch as ``forward``.

    Its teacher is a copy of the model as it was, whose answers are kept but for the word.

    Args:
        processes: how many share a step's batches.
    """

    def __init__(self, model: TrainingModel, data: MiniWorld, processes: int) -> None:
        super().__init__()
        self.model, self.data, self.config = model, data, model.config
        self.device = next(model.parameters()).device
        self.ways = mean_ways(data, CLIPS).to(self.device)
        self.batches = self.config.accumulate(processes) * processes  # of a step
        self.before = [copy.deepcopy(model).eval().requires_grad_(False)]  # in a list: no part of this module

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The batch's loss and a lesson's, and the figures of both."""
        factor = self.factor(batch.index // self.batches)
        lesson, words = self.loss(10_000 + batch.index, factor, captions=1, near=True, with_subject=WITH_SUBJECT)
        loss, figures = self.model(batch)
        return loss + lesson, {**figures, **words}

    def factor(self, step: int) -> float:
        """How many times its natural size a word's mean clip is asked for: falls until the middle of the training."""
        return AMPLIFIED_LAST * (AMPLIFIED / AMPLIFIED_LAST) ** max(0.0, 1 - 2 * step / self.config.steps)

    def loss(self, number: int, factor: float, captions: int, near: bool = False, first: bool = False,
             with_subject: float = 0.0, weight: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """The loss of one lesson, and how much of each word's mean clip is shown, 1 being its natural size.

        number: of the lesson; captions and noise follow from it. near: half of it at timesteps NEAR..998. first: the
        usual way for all words. with_subject: the share of captions whose subject is kept, of 0..1. weight: of each
        word, [4].
        """
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + number)
        clips = [self.data.world.clip(number * captions + n) for n in range(captions)]
        clean = self.data.latent.encode(torch.cat([clip.frames for clip in clips])).unflatten(0, (captions, -1))
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.full((captions,), TRAIN_STEPS - 1)
        if near:
            earlier = torch.randint(NEAR, TRAIN_STEPS - 1, (captions,), generator=generator)
            times = torch.where(torch.rand(captions, generator=generator) < 0.5, times, earlier)
        keep_ref = (torch.rand(captions, generator=generator) < with_subject).float()
        subject = self.data.latent.encode(torch.stack([clip.subject for clip in clips]))
        clean, noise, times, keep_ref, subject = (x.to(self.device) for x in (clean, noise, times, keep_ref, subject))
        alpha, sigma = (s.view(-1, 1, 1, 1, 1) for s in signal_and_noise(times, "v_zsnr"))
        noisy = alpha * clean + sigma * noise
        with torch.no_grad():
            kept = self.say(self.before[0], noisy, times, [clip.caption for clip in clips], subject, keep_ref)
        asked = [with_direction(clip.caption, word) for clip in clips for word in WORDS]
        every = len(WORDS)
        repeated = (x.repeat_interleave(every, 0) for x in (subject, keep_ref))
        said = self.say(self.model, noisy.repeat_interleave(every, 0), times.repeat_interleave(every), asked, *repeated)
        # v = alpha noise - sigma x_0, so what the words add to x_0 is: [captions, 4, F, C, h, w]
        added = (kept[:, None] - said.unflatten(0, (captions, every))) / sigma[:, None]
        goal = factor * (self.ways[USUAL] if first else self.ways)
        error = (added - goal).square() * sigma[:, None].square()
        if weight is not None:
            error = error * weight.view(1, -1, 1, 1, 1, 1)
        shown = (added.detach().mean(0) * self.ways).flatten(1).sum(1) / self.ways.square().flatten(1).sum(1)
        return error.mean(), {f"word_{word}": share for word, share in zip(WORDS, shown, strict=True)}

    def say(self, model: TrainingModel, noisy: Tensor, times: Tensor, captions: list[str], subject: Tensor,
            keep_ref: Tensor) -> Tensor:  # fmt: skip
        """v [B, F, C, h, w] for noisy [B, F, C, h, w] at times [B], without boxes.

        subject: [B, C, h, w]; keep_ref: 1 where it is kept [B]."""
        frames, f = noisy.flatten(0, 1), noisy.shape[1]
        nowhere = noisy.new_zeros(len(frames), 1, *noisy.shape[-2:])
        tokens, keep = self.data.tokens(captions).to(self.device), keep_ref if keep_ref.any() else None
        given = model.conditions(times, tokens, subject, nowhere, keep, None)
        return model.predict(frames, times, given).float().unflatten(0, (-1, f))


def learn_words(lesson: Lesson, accelerator: Accelerator, log: RunLog | None) -> None:
    """The lesson alone: the pattern of place and time, then the words that turn it. The same in every process.

    Raises ValueError if the words are not learned in WORD_STEPS."""
    learning = {name: p for name, p in lesson.model.learning.items() if not name.startswith("adapter.")}
    optimizer = torch.optim.AdamW(learning.values(), lr=LESSON_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    weight = torch.tensor([UNUSUAL_WEIGHT, 1.0] * 2, device=lesson.device)
    bar = tqdm(range(PATTERN_STEPS + WORD_STEPS), unit="step", mininterval=2, disable=log is None, desc="words")
    for step in bar:
        set_rate(optimizer, LESSON_RATE * min(1.0, (step + 1) / 10))
        with accelerator.autocast():
            loss, words = lesson.loss(step, AMPLIFIED, captions=2, first=step < PATTERN_STEPS, weight=weight)
        loss.backward()
        nn.utils.clip_grad_norm_(learning.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        learned = step >= PATTERN_STEPS and min(words.values()) > LEARNED * AMPLIFIED
        if log is not None and (learned or (step + 1) % 10 == 0):
            row = {name: round(value.item(), 3) for name, value in {"loss": loss, **words}.items()}
            log.write("lesson", 0, lesson_step=step + 1, **row)
            bar.set_postfix(row)
        if learned:
            bar.close()
            return
    raise ValueError(f"After {PATTERN_STEPS + WORD_STEPS} steps the words do not turn the pattern; try another seed.")

"""The clips of an evaluation on disk: what has to be generated, what is there, and who makes what."""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from .engine import Comfy, Prompt
from .prompts import CONDITIONS, MAIN, SHOWN, Case, Condition, Setup, generate, reconstruct

AnyCase = TypeVar("AnyCase", bound=Case)


@dataclass(frozen=True)
class Series:
    """One clip per case: a row of the table, or one sampling seed of it.

    condition: None for the real clips through the VAE."""

    condition: Condition | None
    setup: Setup

    @property
    def name(self) -> str:
        return "real clips through the VAE" if self.condition is None else self.condition.name

    @property
    def folder(self) -> Path:
        """Where its clips are, below the folder of all clips."""
        if self.condition is None:
            return Path("vae")
        return Path(self.condition.folder) / f"seed-{self.setup.seed}"

    def prompt(self, case: Case) -> Prompt:
        if self.condition is None:
            return reconstruct(case, self.setup)
        return generate(case, self.condition, self.setup)


def all_series(setup: Setup, seeds: Sequence[int]) -> list[Series]:
    """What a full table is made of: the whole method with every seed, everything else with the first."""
    series = [Series(None, setup)]
    for condition in CONDITIONS:
        used = seeds if condition == MAIN else seeds[:1]
        series += [Series(condition, replace(setup, seed=seed)) for seed in used]
    return series


@dataclass(frozen=True)
class Share:
    """This process does the cases i with i % parts == part."""

    part: int = 0
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """From "K/N", 0 <= K < N."""
        part, slash, parts = text.partition("/")
        if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            raise argparse.ArgumentTypeError(f"{text!r} is no share; write K/N with K from 0 to N - 1, as in 0/2.")
        return cls(int(part), int(parts))

    def of(self, cases: Sequence[AnyCase]) -> list[AnyCase]:
        return [case for case in cases if case.number % self.parts == self.part]


def clip_file(folder: Path, case: Case) -> Path:
    return folder / f"{case.number:04d}.npz"


def missing(folder: Path, cases: Sequence[AnyCase]) -> list[AnyCase]:
    """The cases whose clip is not in `folder`."""
    return [case for case in cases if not clip_file(folder, case).exists()]


def load(folder: Path, cases: Sequence[Case]) -> list[np.ndarray]:
    """The clips of all cases, uint8 [F, H, W, 3] each."""
    return [np.load(clip_file(folder, case))["frames"] for case in cases]


def render(comfy: Comfy, folder: Path, cases: Sequence[AnyCase], prompt: Callable[[AnyCase], Prompt]) -> None:
    """Generate the clips of `cases` that `folder` lacks, one prompt each. A clip is written whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    started, absent = time.time(), missing(folder, cases)
    for made, case in enumerate(absent, start=1):
        case.write_inputs(comfy.input_dir)
        frames = comfy.run(prompt(case), SHOWN)
        write_whole(clip_file(folder, case), partial(np.savez_compressed, frames=frames))
        if made % 8 == 0 or made == len(absent):
            each = (time.time() - started) / made
            print(f"{folder.parent.name}/{folder.name}: {made} of {len(absent)} clips, {each:.1f} s each", flush=True)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place first, so that an interruption leaves none in part; other processes may do the
    same at once."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
    write(temporary)
    os.replace(temporary, path)

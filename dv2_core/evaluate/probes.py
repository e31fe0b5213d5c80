"""Does a clip show what its caption says: direction, kind of background, colour. Exact, since the captions are made.

A probe reads one word off every clip and counts how often it is the caption's. Chance is what the same answers would
score against shuffled captions, so a model that always does the same thing is at chance, whatever it does.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..world.clips import direction_of
from ..world.colour import colour_word
from .background import BackgroundClassifier
from .detector import Detector
from .metrics import missed
from .pairs import Pair, to_frames
from .prompts import Condition

SIGMAS = 4.0  # how far above chance a probe must be


@dataclass(frozen=True)
class Agreement:
    """How often N answers are the caption's word, and how often they would be with the captions shuffled."""

    clips: int
    accuracy: float
    chance: float
    error: float  # standard deviation of the accuracy over all shuffles

    @property
    def sigmas(self) -> float:
        """How many standard errors the accuracy lies above chance; 0 where no shuffle changes it."""
        return (self.accuracy - self.chance) / self.error if self.error > 0 else 0.0


def agreement(answers: Sequence[str], words: Sequence[str]) -> Agreement:
    """Compare answers ("" = none) with the captions' words, one of each per clip; at least two clips.

    Mean and variance over all permutations are exact: with r_k answers and c_k words of kind k among n clips the
    number of matches has mean sum r_k c_k / n and variance
    [sum r_k c_k (n - r_k)(n - c_k) + sum_{k != l} r_k c_k r_l c_l] / (n^2 (n - 1))."""
    count = len(words)
    if count < 2 or len(answers) != count:
        raise ValueError(f"{len(answers)} answers and {count} words cannot be compared; give as many, two at least.")
    given, wanted = Counter(answers), Counter(words)
    kinds = sorted(wanted)
    r, c = (np.array([counter[kind] for kind in kinds], float) for counter in (given, wanted))
    products = r * c
    variance = (products * (count - r) * (count - c)).sum() + products.sum() ** 2 - (products**2).sum()
    return Agreement(
        clips=count,
        accuracy=sum(a == w for a, w in zip(answers, words, strict=True)) / count,
        chance=float(products.sum() / count**2),
        error=float(np.sqrt(variance / (count**2 * (count - 1))) / count),
    )


# --- reading a word off a clip ----------------------------------------------------------------------------------------


def direction_seen(detected: np.ndarray) -> str:
    """The way from the first to the last box that was found, [F, 4]; "" if there are not two."""
    found = detected[~missed(detected)]
    return direction_of(found[[0, -1]]) if len(found) > 1 else ""


def colour_seen(frames: torch.Tensor, regions: torch.Tensor) -> str:
    """The word for the main colour of the subject's pixels in all frames; "" if there are none.

    frames [F, 3, H, W] in 0..1; regions bool [F, h, w] of any size. It is the world's own rule for its captions."""
    frames = F.interpolate(frames, regions.shape[-2:], mode="bilinear", antialias=True)
    if not regions.any():
        return ""
    pixels = torch.cat([frames, regions[:, None].float()], 1)  # [F, 4, h, w]
    return colour_word(pixels.permute(1, 0, 2, 3).flatten(1, 2).numpy())


# --- the three probes -------------------------------------------------------------------------------------------------


def probes_of(condition: Condition | None) -> tuple[str, ...]:
    """The probes that say something about text under a condition; None: real clips, all of them.

    Boxes decide the direction and the subject's picture its colour, whatever the caption says."""
    if condition is None:
        return ("direction", "background", "colour")
    direction, colour = () if condition.boxes else ("direction",), () if condition.subject else ("colour",)
    return (*direction, "background", *colour)


def probe(
    names: Sequence[str],
    clips: Sequence[np.ndarray],
    detected: np.ndarray,
    pairs: Sequence[Pair],
    detector: Detector,
    backgrounds: BackgroundClassifier,
) -> dict[str, Agreement]:
    """Ask the probes `names` of one clip per pair: uint8 [F, H, W, 3] each, with its detected boxes [N, F, 4].

    A probe that fewer than two captions speak about is left out."""
    frames = [to_frames(clip) for clip in clips]
    read: dict[str, Callable[[int], str]] = {
        "direction": lambda i: direction_seen(detected[i]),
        "background": lambda i: backgrounds.kind(frames[i], detected[i]),
        "colour": lambda i: colour_seen(frames[i], detector.regions(frames[i])),
    }
    results = {}
    for name in names:
        words = [str(getattr(pair.clip, name)) for pair in pairs]
        asked = [i for i, word in enumerate(words) if word]  # half of the captions name no colour
        if len(asked) > 1:
            results[name] = agreement([read[name](i) for i in asked], [words[i] for i in asked])
    return results

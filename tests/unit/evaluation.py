"""What the tests of the evaluation share: subjects, a detector and a ComfyUI that answer at once."""

import functools

import numpy as np

from dv2_core.evaluate.prompts import SHOWN
from dv2_core.world.atlas import Atlas, Sprite


class Oracle:
    """A detector that knows the answer: gives the boxes of the clips it is shown, in their order."""

    def __init__(self, answers):
        self.answers = iter(answers)

    def boxes(self, frames):
        return next(self.answers)


class FakeComfy:
    """Counts the prompts it is given and answers each with a grey clip."""

    def __init__(self, input_dir):
        self.prompts = []
        self.input_dir = input_dir

    def run(self, prompt, show):
        assert show == SHOWN
        self.prompts.append(prompt)
        return np.full((8, 64, 64, 3), len(self.prompts), np.uint8)


@functools.cache
def ellipses() -> Atlas:
    """60 held-out and 4 training concepts: two-coloured ellipses, each in two styles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    rgba, sprites = [], []
    for concept in range(64):
        for style in ("noto", "fluent-3d"):
            picture = np.zeros((64, 64, 4), np.uint8)
            inside = (x / rng.uniform(0.5, 1)) ** 2 + (y / rng.uniform(0.5, 1)) ** 2 < 1
            picture[inside & (x < 0)] = (*rng.integers(0, 255, 3), 255)
            picture[inside & (x >= 0)] = (*rng.integers(0, 255, 3), 255)
            rgba.append(picture)
            split = "train" if concept < 4 else "test"
            sprites.append(Sprite(f"{concept:x}", f"thing{concept}", style, "Apache-2.0", split))
    return Atlas(np.stack(rgba), sprites)

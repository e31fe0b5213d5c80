"""Which kind of background a clip shows: statistics of what lies beside the subject, and a small classifier of them.

The classifier learns from the mini-world's own backgrounds, with the damage that small video models do, in a few
seconds and the same way every time; it sees no clip and no subject.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..world.clips import BACKGROUNDS, random_background
from .detector import degrade
from .metrics import covered

SIZE = 64  # frame side of the examples
MARGIN = 2  # pixels around a box that may still show the subject
EXAMPLES = 2000
STEPS = 400
HOLE = (0.1, 0.31)  # half the side of the hole that an example's "subject" leaves, in frame sides


def background_picture(frames: torch.Tensor, boxes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of what the frames show outside the boxes: frames [F, 3, H, W], boxes [F, 4] or NaN.

    Returns colours [3, H, W] and where anything was seen, bool [H, W]."""
    height, width = frames.shape[-2:]
    seen = (~covered(boxes, height, width, MARGIN)).float()  # [F, H, W]
    count = seen.sum(0)
    return (frames * seen[:, None]).sum(0) / count.clamp(min=1), count > 0


def statistics(picture: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """What tells the kinds apart, float32 [8], from [3, H, W] and bool [H, W].

    All kinds blend two colours, so the pixels are reduced to their place on the line between two colours (their first
    principal component). Then: contrast; how much of it a plane explains (gradient); strength, direction and
    concentration of the edges (stripes have one direction, checks two at right angles, clouds soft ones); and whether
    there are two levels or many. Zeros where nothing was seen."""
    if not seen.any():
        return torch.zeros(8)
    height, width = seen.shape
    colours = picture[:, seen] - picture[:, seen].mean(1, keepdim=True)  # [3, n]
    axes = torch.linalg.eigh(colours @ colours.T / colours.shape[1]).eigenvectors
    values = axes[:, -1] @ colours  # [n]
    contrast = values.std(correction=0).clamp(min=1e-3)
    values = values / contrast

    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    plane = torch.stack([x[seen], y[seen], torch.ones_like(values)], 1)  # [n, 3]
    rest = values - (plane @ torch.linalg.lstsq(plane, values[:, None]).solution)[:, 0]

    image = torch.zeros(height, width)
    image[seen] = values
    inner = -F.max_pool2d(-seen[None].float(), 3, 1)[0] > 0  # [H-2, W-2], all neighbours seen
    dx = ((image[1:-1, 2:] - image[1:-1, :-2]) / 2)[inner]
    dy = ((image[2:, 1:-1] - image[:-2, 1:-1]) / 2)[inner]
    if not len(dx):
        return torch.zeros(8)
    xx, yy, xy = (dx**2).mean(), (dy**2).mean(), (dx * dy).mean()  # the structure tensor
    energy = (xx + yy).clamp(min=1e-8)
    return torch.stack(
        [
            contrast.log(),
            1 - (rest**2).mean(),
            energy.log(),
            ((xx - yy) ** 2 + 4 * xy**2).sqrt() / energy,
            (dx * dy).abs().mean() / energy,
            torch.hypot(dx, dy).mean() ** 2 / energy,
            values.abs().mean(),
            torch.minimum(xx, yy) / energy,
        ]
    )


def example(index: int, rng: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
    """Statistics of one made background of the kind `BACKGROUNDS[index % 5]`, most of them damaged."""
    frames = random_background(rng, BACKGROUNDS[index % len(BACKGROUNDS)], SIZE)[None].repeat(3, 1, 1, 1)
    if rng.uniform() < 0.7:
        frames = degrade(frames, generator)
    first, last = rng.uniform(0.2, 0.8, (2, 2))
    centres = first + (last - first) * np.linspace(0, 1, 3)[:, None]  # [3, 2]
    half = rng.uniform(*HOLE)
    return statistics(*background_picture(frames, np.concatenate([centres - half, centres + half], 1).clip(0, 1)))


class BackgroundClassifier:
    """Trained when it is made (seconds); two of them give the same answers."""

    def __init__(self, examples: int = EXAMPLES, seed: int = 0):
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        inputs = torch.stack([example(index, rng, generator) for index in range(examples)])
        kinds = torch.arange(examples) % len(BACKGROUNDS)
        self.mean, self.std = inputs.mean(0), inputs.std(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(inputs.shape[1], 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, len(BACKGROUNDS))
            )
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=5e-3, weight_decay=1e-3)
        for _ in range(STEPS):
            loss = F.cross_entropy(self.network((inputs - self.mean) / self.std), kinds)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def kind(self, frames: torch.Tensor, boxes: np.ndarray) -> str:
        """One of `BACKGROUNDS`: frames [F, 3, H, W] in 0..1, boxes [F, 4] of the subject, or NaN."""
        values = statistics(*background_picture(frames, boxes))
        return BACKGROUNDS[int(self.network((values - self.mean) / self.std).argmax())]

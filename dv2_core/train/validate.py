"""The validation loss: held-out clips at fixed noise and timesteps; two measurements differ by the weights alone."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..diffusion import reweighted_loss
from .data import LADDER, Data
from .model import TrainingModel

FIGURES = ("loss", "mse", "inside", "outside")


@torch.no_grad()
def validate(model: TrainingModel, data: Data, accelerator: Accelerator) -> dict[str, Any]:
    """Means over the held-out clips, which the processes share among them.

    Returns:
        ``loss`` (Eq. 6), ``mse``, ``inside`` and ``outside`` (mean squared error in and out of the boxes), and
        ``by_timestep``: the same for every timestep of the ladder.
    """
    sums = torch.zeros(len(LADDER), len(FIGURES) + 1, device=accelerator.device)  # the last column counts
    for n, batch in enumerate(data.validation()):
        if n % accelerator.num_processes != accelerator.process_index:
            continue
        batch = batch.to(accelerator.device)
        with accelerator.autocast():
            prediction, goal = model.denoise(batch)
        f = batch.latents.shape[0] // batch.timesteps.shape[0]
        for row, timestep in enumerate(batch.timesteps.tolist()):
            frames = slice(row * f, (row + 1) * f)
            loss, figures = reweighted_loss(prediction[frames], goal[frames], batch.masks[frames], model.lambda_l)
            sums[LADDER.index(timestep)] += torch.stack(
                [loss, *(figures[k] for k in FIGURES[1:]), torch.ones_like(loss)]
            )
    total: Tensor = accelerator.reduce(sums, "sum").cpu()  # type: ignore[assignment]
    means = (total[:, :-1] / total[:, -1:]).tolist()
    overall = (total[:, :-1].sum(0) / total[:, -1].sum()).tolist()
    by_timestep = {str(t): dict(zip(FIGURES, row, strict=True)) for t, row in zip(LADDER, means, strict=True)}
    return {**dict(zip(FIGURES, overall, strict=True)), "by_timestep": by_timestep}

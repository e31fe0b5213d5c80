"""Reweighted diffusion loss (DreamVideo-2, Eq. 6)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def reweighted_loss(
    prediction: Tensor, target: Tensor, masks: Tensor, lambda_l: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """E[(lambda_L M + (1 - M)) * (target - prediction)^2].

    Args:
        prediction, target: [B * F, C, h, w].
        masks: [B * F, 1, H, W] box masks, 1 inside, area-averaged to the latent grid here.
        lambda_l: weight inside the boxes (paper: 2).

    Returns:
        The scalar loss, and detached mean squared errors ``mse``, ``inside`` and ``outside`` for the log.
    """
    inside = F.adaptive_avg_pool2d(masks, (prediction.shape[-2], prediction.shape[-1]))  # [B * F, 1, h, w]
    error = (prediction.float() - target.float()).square().mean(dim=1, keepdim=True)  # [B * F, 1, h, w]
    loss = ((lambda_l * inside + (1.0 - inside)) * error).mean()
    detached, eps = error.detach(), 1e-8
    return loss, {
        "mse": detached.mean(),
        "inside": (inside * detached).sum() / (inside.sum() + eps),
        "outside": ((1 - inside) * detached).sum() / ((1 - inside).sum() + eps),
    }

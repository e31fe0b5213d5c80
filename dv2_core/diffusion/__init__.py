"""Noise schedule, DDIM and the reweighted loss."""

from .loss import reweighted_loss
from .schedule import alphas_cumprod, ddim_sample, ddim_sigmas, ddim_timesteps, signal_and_noise, target

__all__ = [
    "alphas_cumprod",
    "ddim_sample",
    "ddim_sigmas",
    "ddim_timesteps",
    "reweighted_loss",
    "signal_and_noise",
    "target",
]

"""Noise schedule, DDIM and the reweighted loss."""

from .loss import reweighted_loss
from .schedule import (
    PREDICTIONS,
    Prediction,
    alphas_cumprod,
    ddim_sample,
    ddim_sigmas,
    ddim_timesteps,
    signal_and_noise,
    target,
    zero_terminal_snr,
)

__all__ = [
    "PREDICTIONS",
    "Prediction",
    "alphas_cumprod",
    "ddim_sample",
    "ddim_sigmas",
    "ddim_timesteps",
    "reweighted_loss",
    "signal_and_noise",
    "target",
    "zero_terminal_snr",
]

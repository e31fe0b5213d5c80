"""ModelScope's noise schedule and its exact 50-step DDIM.

Source: modelscope ``GaussianDiffusion`` (``linear_sd``), VGen; diffusers ``DDIMScheduler`` with the published config
(leading spacing, steps_offset 1, set_alpha_to_one False). For "v_zsnr", a v-prediction whose last timestep is noise
alone (zero terminal SNR): Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed",
arXiv 2305.08891; ComfyUI's ``zsnr``; diffusers' ``rescale_betas_zero_snr`` with trailing spacing. For
"v_cosine_zsnr", the same on cosine betas (Nichol and Dhariwal, arXiv 2102.09672): VGen's ``configs/t2v_train.yaml``
and ``tools/modules/diffusions/schedules.py``; diffusers' ``squaredcos_cap_v2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

Prediction = Literal["eps", "v", "v_zsnr", "v_cosine_zsnr"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
TRAIN_STEPS = 1000

#: alpha-bar of the last timestep under zero terminal SNR: ComfyUI's number in the place of 0, which keeps sigma finite
#: (4519).
TERMINAL = 4.8973451890853435e-08


def alphas_cumprod(prediction: Prediction = "eps") -> Tensor:
    """alpha-bar of the 1000 training timesteps, float64 [1000]; betas = linspace(sqrt .00085, sqrt .012)^2.

    For "v_cosine_zsnr" alpha-bar falls as cos^2, from an offset of .008 on, by a factor of at least .001 at a step. For
    it and "v_zsnr" sqrt(alpha-bar) is shifted and scaled so that it keeps its first value and ends at (almost) 0."""
    if prediction == "v_cosine_zsnr":
        times = torch.arange(TRAIN_STEPS + 1, dtype=torch.float64) / TRAIN_STEPS
        falling = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1.0 - falling[1:] / falling[:-1]).clamp(max=0.999)
    else:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1.0 - betas, dim=0)
    if not zero_terminal_snr(prediction):
        return alpha_bar
    root = alpha_bar.sqrt()
    rescaled = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    rescaled[-1] = TERMINAL
    return rescaled


def zero_terminal_snr(prediction: Prediction) -> bool:
    """Whether the last timestep is noise alone."""
    return prediction.endswith("zsnr")


def signal_and_noise(timesteps: Tensor, prediction: Prediction = "eps") -> tuple[Tensor, Tensor]:
    """(sqrt(alpha-bar_t), sqrt(1 - alpha-bar_t)) of integer timesteps [B], float32 [B, 1, 1, 1]."""
    alpha_bar = alphas_cumprod(prediction).to(timesteps.device)[timesteps][:, None, None, None]
    return alpha_bar.sqrt().float(), (1.0 - alpha_bar).sqrt().float()


def target(prediction: Prediction, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network is to predict: the noise, or v = alpha * noise - sigma * x0."""
    return noise if prediction == "eps" else alpha * noise - sigma * x0


def ddim_timesteps(steps: int, prediction: Prediction = "eps") -> list[int]:
    """The original's timesteps from noisy to clean: 981, 961, ..., 1 for 50 steps.

    As in the original and in diffusers, a number of steps that does not divide 1000 starts later than 999. With zero
    terminal SNR the first is 999, where the noise that sampling starts from is what training has seen: 999, 979, ...,
    19. (VGen samples its own such file from 981 all the same.)
    """
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"DDIM was asked for {steps} steps; give a number from 1 to {TRAIN_STEPS}.")
    if zero_terminal_snr(prediction):
        return (
            (TRAIN_STEPS - torch.arange(steps, dtype=torch.float64) * (TRAIN_STEPS / steps))
            .round()
            .long()
            .sub(1)
            .tolist()
        )
    return (1 + torch.arange(0, TRAIN_STEPS, TRAIN_STEPS // steps))[:steps].clamp(max=TRAIN_STEPS - 1).flip(0).tolist()


def ddim_sigmas(steps: int, prediction: Prediction = "eps") -> Tensor:
    """The same as sigmas = sqrt((1 - alpha-bar) / alpha-bar), ending at t = 0 like the original. [steps + 1]."""
    alpha_bar = alphas_cumprod(prediction)[torch.tensor([*ddim_timesteps(steps, prediction), 0])]
    return ((1 - alpha_bar) / alpha_bar).sqrt().float()


@torch.no_grad()
def ddim_sample(
    predict: Callable[[Tensor, int], Tensor], noise: Tensor, steps: int, prediction: Prediction = "eps"
) -> Tensor:
    """Deterministic DDIM (eta = 0).

    Args:
        predict: (x_t, t) -> noise or v prediction, guidance included.
        noise: x_T ~ N(0, 1), taken as x at the first timestep, as the original does.

    Returns:
        x at t = 0, as the original.
    """
    alpha_bar, x = alphas_cumprod(prediction), noise
    times = [*ddim_timesteps(steps, prediction), 0]
    for t, t_prev in zip(times[:-1], times[1:], strict=True):
        alpha, sigma = float(alpha_bar[t].sqrt()), float((1 - alpha_bar[t]).sqrt())
        out = predict(x, t)
        x0, eps = (
            ((x - sigma * out) / alpha, out)
            if prediction == "eps"
            else (alpha * x - sigma * out, sigma * x + alpha * out)
        )
        x = float(alpha_bar[t_prev].sqrt()) * x0 + float((1 - alpha_bar[t_prev]).sqrt()) * eps
    return x

"""Exact DDIM as ComfyUI SIGMAS and SAMPLER, and one sampling run."""

from __future__ import annotations

import math
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

from ...dv2_core.diffusion.schedule import TRAIN_STEPS, ddim_timesteps


def ddim_sigmas(model: Any, steps: int, denoise: float = 1.0) -> Tensor:
    """Sigmas of the original's timesteps (981, 961, ..., 1 for 50 steps), ending at t = 0 and not at sigma = 0.

    A model of zero terminal SNR, by its file or by the core's ModelSamplingDiscrete, starts at t = 999.

    With ``denoise`` below 1 the last ``steps`` of ``steps / denoise`` steps, as the core's schedulers do.
    """
    if denoise <= 0.0:
        return torch.FloatTensor([])
    sampling = model.get_model_object("model_sampling")
    total = min(TRAIN_STEPS, max(steps, int(steps / denoise)))
    # The core's ModelSamplingDiscrete node knows zero terminal SNR too; the timesteps are those of either schedule.
    prediction = "v_zsnr" if getattr(sampling, "zsnr", False) else "eps"
    times = [*ddim_timesteps(total, prediction), 0][-(steps + 1) :]
    return sampling.sigma(torch.tensor(times, dtype=torch.float32, device=sampling.sigmas.device)).cpu()


def ddim_sampler() -> Any:
    """DDIM with eta = 0 in sigma space is Euler; two scale factors make it the original's to float error.

    The original takes the noise itself as x_981, where ComfyUI multiplies it by sigma; and it ends at t = 0, whose
    sigma is not 0.
    """

    def sample(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None,
               disable: Any = None) -> Tensor:  # fmt: skip
        if len(sigmas) < 2:
            return x
        first, last = sigmas[0], sigmas[-1]
        pure_noise = torch.count_nonzero(model.latent_image) == 0
        # After noise_scaling x is sigma * noise (or sqrt(1 + sigma^2) * noise from the very top); make it the latter.
        top = float(model.inner_model.inner_model.model_sampling.sigma_max)
        if pure_noise and first < top and not math.isclose(first, top, rel_tol=1e-5):  # the core's own comparison
            x = x * (1.0 + first**2).sqrt() / first
        x = k_diffusion.sample_euler(model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable)
        x = x / (1.0 + last**2).sqrt()
        mask = (extra_args or {}).get("denoise_mask")
        # At t = 0 a little noise is left; what a mask keeps has none.
        return x if mask is None else torch.lerp(model.latent_image, x, mask.to(x).expand_as(x))

    return comfy.samplers.KSAMPLER(sample)


def sample(model: Any, seed: int, cfg: float, sampler: Any, sigmas: Tensor, positive: Any, negative: Any,
           latent: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """One run with the user's preview method and progress bar. Returns a LATENT."""
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
    out = comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, samples,
        noise_mask=latent.get("noise_mask"), callback=callback, disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )  # fmt: skip
    return {**latent, "samples": out}

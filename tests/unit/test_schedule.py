"""Noise schedule and exact DDIM against modelscope's ``GaussianDiffusion`` and diffusers' ``DDIMScheduler``."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dv2_core.diffusion import alphas_cumprod, ddim_sample, ddim_sigmas, ddim_timesteps, signal_and_noise, target
from tests.oracles.public import modelscope, noise, relative_error

BOUND = 1e-5


@pytest.fixture(scope="module")
def gaussian_diffusion() -> Any:
    oracle = modelscope("diffusion")
    betas = oracle.beta_schedule("linear_sd", 1000, init_beta=0.00085, last_beta=0.0120)
    return oracle.GaussianDiffusion(betas=betas, mean_type="eps", var_type="fixed_small", loss_type="mse")


def ddim_scheduler(prediction_type: str = "epsilon", **changes: Any) -> Any:
    """With the scheduler_config.json of text-to-video-ms-1.7b."""
    from diffusers import DDIMScheduler

    settings: dict[str, Any] = dict(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type=prediction_type,
    )
    return DDIMScheduler(**{**settings, **changes})


ZERO_SNR = {"v_zsnr": "scaled_linear", "v_cosine_zsnr": "squaredcos_cap_v2"}  # with diffusers' name of the betas


def zero_snr_scheduler(prediction: str) -> Any:
    changes: dict[str, Any] = dict(beta_schedule=ZERO_SNR[prediction], rescale_betas_zero_snr=True)
    return ddim_scheduler("v_prediction", timestep_spacing="trailing", **changes)


def vgen_alphas_cumprod() -> Tensor:
    """VGen's schedule of model_scope_0267000: "cosine", cosine_s 0.008, rescaled; written after its schedules.py."""

    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    root, product = [], 1.0
    for step in range(1000):
        product *= 1.0 - min(1.0 - level((step + 1) / 1000) / level(step / 1000), 0.999)
        root.append(product**0.5)
    first, last = root[0], root[-1]
    return torch.tensor([((value - last) * first / (first - last)) ** 2 for value in root], dtype=torch.float64)


def smooth_network(seed: int = 0) -> Callable[[Tensor, int], Tensor]:
    """A fixed smooth function of x and t, about as large as noise."""
    mix = noise(16, 16, seed=seed) / 4.0

    def network(x: Tensor, t: int) -> Tensor:
        return 0.3 * x + torch.tanh(torch.einsum("bchw,cd->bdhw", x, mix)) * (1.0 + 0.5 * float(t) / 1000.0)

    return network


def as_eps(network: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """The noise that a v-predicting network implies: eps = sigma x + alpha v."""

    def predict(x: Tensor, t: int) -> Tensor:
        alpha_bar = alphas_cumprod()[int(t)]
        return float((1 - alpha_bar).sqrt()) * x + float(alpha_bar.sqrt()) * network(x, t)

    return predict


def test_alphas_equal_both_public_schedules(gaussian_diffusion: Any) -> None:
    assert torch.equal(alphas_cumprod(), gaussian_diffusion.alphas_cumprod)
    assert relative_error(alphas_cumprod().float(), ddim_scheduler().alphas_cumprod) <= 1e-6


def test_sigmas_have_the_published_ends() -> None:
    sigmas = ddim_sigmas(50)
    assert sigmas.shape == (51,) and sigmas.dtype == torch.float32
    assert float(sigmas[0]) == pytest.approx(13.1204, abs=1e-4)
    assert float(sigmas[-2]) == pytest.approx(0.041314, abs=1e-6)
    assert float(sigmas[-1]) == pytest.approx(0.029167, abs=1e-6)
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize("steps", [1, 7, 20, 25, 30, 50, 100])
def test_timesteps_equal_diffusers(steps: int) -> None:
    scheduler = ddim_scheduler()
    scheduler.set_timesteps(steps)
    assert ddim_timesteps(steps) == scheduler.timesteps.tolist()


def test_fifty_timesteps_equal_modelscope(gaussian_diffusion: Any) -> None:
    seen: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return x

    gaussian_diffusion.ddim_sample_loop(noise(1, 1, 1, 1), network, ddim_timesteps=50)
    assert ddim_timesteps(50) == seen == list(range(981, 0, -20))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_equals_modelscope(steps: int, prediction: Any, gaussian_diffusion: Any) -> None:
    network, x = smooth_network(), noise(2, 16, 8, 8)
    eps = network if prediction == "eps" else as_eps(network)
    expected = gaussian_diffusion.ddim_sample_loop(x, lambda x, t: eps(x, int(t[0])), ddim_timesteps=steps)
    assert relative_error(ddim_sample(network, x, steps, prediction), expected) <= BOUND


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("steps", [7, 50])
def test_ddim_equals_diffusers(steps: int, prediction: Any) -> None:
    network, x = smooth_network(), noise(2, 16, 8, 8)
    scheduler = ddim_scheduler("epsilon" if prediction == "eps" else "v_prediction")
    scheduler.set_timesteps(steps)
    expected = x
    for t in scheduler.timesteps:
        expected = scheduler.step(network(expected, int(t)), t, expected, eta=0.0).prev_sample
    assert relative_error(ddim_sample(network, x, steps, prediction), expected) <= BOUND


@pytest.mark.parametrize("prediction", ZERO_SNR)
def test_zero_terminal_snr_equals_diffusers_up_to_the_last_timestep(prediction: Any) -> None:
    """There diffusers has 0, whose sigma is infinite, and ComfyUI a very small number."""
    ours, expected = alphas_cumprod(prediction).float(), zero_snr_scheduler(prediction).alphas_cumprod
    assert relative_error(ours, expected) <= BOUND
    assert 0.0 < float(ours[-1]) < 1e-7 and bool((ours.diff() < 0).all())


def test_rescaling_keeps_the_first_timestep() -> None:
    assert float(alphas_cumprod("v_zsnr")[0]) == pytest.approx(float(alphas_cumprod()[0]), rel=1e-12)


def test_the_cosine_schedule_equals_vgens_up_to_the_last_timestep() -> None:
    ours, expected = alphas_cumprod("v_cosine_zsnr"), vgen_alphas_cumprod()
    assert float((ours[:-1] / expected[:-1] - 1).abs().max()) < 1e-9
    assert float(expected[-1]) == 0.0


@pytest.mark.parametrize("prediction", ZERO_SNR)
@pytest.mark.parametrize("steps", [1, 25, 50])  # where they do not divide 1000, diffusers steps past its next timestep
def test_ddim_of_zero_terminal_snr_starts_at_pure_noise_and_equals_diffusers(steps: int, prediction: Any) -> None:
    network, x, scheduler = smooth_network(), noise(2, 16, 8, 8), zero_snr_scheduler(prediction)
    scheduler.set_timesteps(steps)
    assert ddim_timesteps(steps, prediction) == scheduler.timesteps.tolist()
    expected = x
    for t in scheduler.timesteps:
        expected = scheduler.step(network(expected, int(t)), t, expected, eta=0.0).prev_sample
    # The rest of signal in the first timestep, sqrt(4.9e-8) = 2.2e-4, is all that differs.
    assert relative_error(ddim_sample(network, x, steps, prediction), expected) <= 1e-3


def test_ddim_with_guidance_equals_modelscope(gaussian_diffusion: Any) -> None:
    empty, change, x = smooth_network(1), smooth_network(2), noise(2, 16, 8, 8)
    texts = (lambda x, t: empty(x, t) + 0.05 * change(x, t), empty)  # guidance 9 of unlike networks is chaotic
    expected = gaussian_diffusion.ddim_sample_loop(
        x,
        lambda x, t, text: texts[text](x, int(t[0])),
        model_kwargs=[{"text": 0}, {"text": 1}],
        guide_scale=9.0,
        ddim_timesteps=50,
    )
    ours = ddim_sample(lambda x, t: empty(x, t) + 9.0 * (texts[0](x, t) - empty(x, t)), x, 50)
    assert relative_error(ours, expected) <= BOUND


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_ddim_with_a_perfect_prediction_returns_the_clean_latent_noised_to_timestep_zero(prediction: Any) -> None:
    x0, eps = noise(1, 16, 8, 8, seed=3), noise(1, 16, 8, 8, seed=4)
    alpha, sigma = signal_and_noise(torch.tensor([981]))

    def perfect(x: Tensor, t: int) -> Tensor:
        return target(prediction, x0, eps, *signal_and_noise(torch.tensor([t])))

    alpha_0, sigma_0 = signal_and_noise(torch.tensor([0]))
    out = ddim_sample(perfect, alpha * x0 + sigma * eps, 50, prediction)
    assert relative_error(out, alpha_0 * x0 + sigma_0 * eps) <= BOUND


def test_signal_and_noise_of_a_timestep_have_unit_power(gaussian_diffusion: Any) -> None:
    t = torch.tensor([0, 1, 500, 999])
    alpha, sigma = signal_and_noise(t)
    assert alpha.shape == sigma.shape == (4, 1, 1, 1)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    torch.testing.assert_close(alpha.flatten(), gaussian_diffusion.sqrt_alphas_cumprod[t].float())
    torch.testing.assert_close(sigma.flatten(), gaussian_diffusion.sqrt_one_minus_alphas_cumprod[t].float())


def test_the_v_target_equals_diffusers() -> None:
    x0, eps, t = noise(3, 4, 5, 6, seed=3), noise(3, 4, 5, 6, seed=4), torch.tensor([0, 500, 999])
    expected = ddim_scheduler("v_prediction").get_velocity(x0, eps, t)
    assert relative_error(target("v", x0, eps, *signal_and_noise(t)), expected) <= BOUND
    assert target("eps", x0, eps, *signal_and_noise(t)) is eps


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused_with_a_sentence(steps: int) -> None:
    with pytest.raises(ValueError, match=f"DDIM was asked for {steps} steps; give a number from 1 to 1000"):
        ddim_timesteps(steps)


@pytest.mark.parametrize(("steps", "prediction"), [
    (999, "eps"), (501, "eps"), (334, "eps"), (51, "eps"), (1, "eps"), (501, "v_zsnr"), (334, "v_zsnr"), (1, "v_zsnr"),
])  # fmt: skip
def test_timesteps_never_repeat(steps: int, prediction: Any) -> None:
    times = ddim_timesteps(steps, prediction)
    assert len(times) == len(set(times)) and times == sorted(times, reverse=True)
    assert bool((ddim_sigmas(steps, prediction).diff() < 0).all())

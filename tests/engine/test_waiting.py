"""Inside ComfyUI, too, a step is queued on a GPU without waiting for it (see tests/waiting.py)."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.waiting import GPU, NeverWaiting


def step_on(lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The core's guided step with both halves of the method, every weight on the "GPU"; call it with a sigma."""
    import comfy.model_management
    import comfy.sampler_helpers
    import comfy.samplers

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_, **__: 2**40)
    base, patcher = ready.base.model.model, ready.model
    for module in (base, ready.adapter.ref.model, ready.adapter.motion.model):
        module.to(GPU)
    base.current_patcher = patcher
    noise = torch.empty(lab.FRAMES, 24, 8, 8, device=GPU)
    conds: Any = {}
    for name in ("positive", "negative"):
        conds[name] = comfy.sampler_helpers.convert_cond(getattr(ready, name))
    conds = comfy.samplers.process_conds(base, noise, conds, GPU, seed=1)
    options = patcher.model_options
    comfy.sampler_helpers.prepare_model_patcher(patcher, conds, options)

    def step(sigma: torch.Tensor) -> torch.Tensor:
        both = [conds["positive"], conds["negative"]]
        cond, uncond = comfy.samplers.calc_cond_batch(base, both, noise, sigma, options)
        return uncond + 2.5 * (cond - uncond)

    return step


def test_a_guided_step_with_the_adapter_is_queued_without_waiting(
    lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        step, sigma = step_on(lab, ready, monkeypatch), torch.empty(lab.FRAMES, device=GPU)
        first = step(sigma)  # brings the subject and the boxes to the GPU
        with NeverWaiting():
            assert step(sigma).shape == first.shape


def test_a_range_of_steps_looks_at_sigma(lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the core does for every ControlNet with a range; it shows that the test above can fail."""
    ready.model = lab.refer(ready.base.model, ready.adapter, ready.base.vae, end=0.5)
    with torch.inference_mode():
        step = step_on(lab, ready, monkeypatch)
        with pytest.raises(RuntimeError, match="item"):
            step(torch.empty(lab.FRAMES, device=GPU))

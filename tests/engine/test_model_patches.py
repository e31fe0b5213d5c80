"""Stock nodes that patch or wrap the MODEL: FreeU, perturbed attention, caches of steps, torch.compile."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch


def test_freeu_acts_on_the_video_and_not_on_the_subject(lab: Any, ready: SimpleNamespace) -> None:
    settings = dict(b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    (freed,) = lab.call("FreeU_V2", model=ready.model, **settings)
    plain = lab.sample(ready.model, ready.positive, ready.negative)
    assert lab.relative_error(lab.sample(freed, ready.positive, ready.negative), plain) > 1e-4
    (silent,) = lab.call("FreeU_V2", model=ready.model, b1=1.0, b2=1.0, s1=1.0, s2=1.0)
    assert lab.relative_error(lab.sample(silent, ready.positive, ready.negative), plain) < 1e-4


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_a_cache_skips_steps_of_the_video(
    lab: Any, ready: SimpleNamespace, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, passes = lab.pack("dv2_core.model").UNet3D, []
    run = core.forward

    def counted(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        passes.append(x.shape[0])
        return run(self, x, *args, **kwargs)

    monkeypatch.setattr(core, "forward", counted)
    settings = dict(start_percent=0.0, end_percent=1.0, verbose=False)
    (cached,) = lab.call(node, model=ready.model, reuse_threshold=3.0, **settings)
    samples = lab.sample(cached, ready.positive, ready.negative, steps=6)
    assert bool(torch.isfinite(samples).all())
    assert passes.count(1) == 2  # the subject with each text
    assert 0 < passes.count(2 * lab.FRAMES) < 6


def test_perturbed_attention_acts_on_the_video_and_not_on_the_subject(
    lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, seen = lab.pack("nodes.host.reference"), []
    features = reference.subject_features

    def recorded(*args: Any, **kwargs: Any) -> Any:
        seen.append(features(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(reference, "subject_features", recorded)
    conds = (ready.positive, ready.negative)
    plain = lab.sample(ready.model, *conds)
    without = seen.copy()
    seen.clear()
    (guided,) = lab.call("PerturbedAttentionGuidance", model=ready.model, scale=3.0)
    samples = lab.sample(guided, *conds)
    assert bool(torch.isfinite(samples).all()) and lab.relative_error(samples, plain) > 1e-3
    assert len(seen) == len(without) == 2  # the third pass of each step is of a text that is known
    for one, other in zip(seen, without, strict=True):
        assert all(torch.equal(one[site], other[site]) for site in one)
    (none,) = lab.call("PerturbedAttentionGuidance", model=ready.model, scale=0.0)
    assert torch.equal(lab.sample(none, *conds), plain)


def test_perturbed_attention_equals_guidance_away_from_a_middle_block_without_attention(lab: Any) -> None:
    """Its own definition: there every token attends to itself alone."""
    base = lab.load()
    (guided,) = lab.call("PerturbedAttentionGuidance", model=base.model, scale=2.0)
    away = base.model.clone()
    away.set_model_attn1_replace(lambda q, k, v, *_: v, "middle", 0)
    settings = dict(steps=1, cfg=1.0)
    made, plain, blind = (lab.sample(m, base.positive, base.negative, **settings) for m in (guided, base.model, away))
    assert lab.relative_error(made, plain + 2.0 * (plain - blind)) < 1e-4


def test_a_compiled_model_gives_the_same_video(lab: Any, ready: SimpleNamespace) -> None:
    """The graphs are what torch.compile captures; turning them into kernels (inductor) takes minutes on a CPU."""
    import torch._dynamo

    conds = (ready.positive, ready.negative)
    expected = lab.sample(ready.model, *conds, lab.latent(8), steps=1)
    torch._dynamo.reset()
    (compiled,) = lab.call("TorchCompileModel", model=ready.model, backend="eager")
    captured = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert lab.relative_error(lab.sample(compiled, *conds, lab.latent(8), steps=1), expected) < 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > captured
    torch._dynamo.reset()

"""What an adapter's settings say is what happens: how often the subject is looked at, and in which branch."""

from typing import Any

import pytest
import torch


@pytest.fixture
def passes(lab: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the subject went through the UNet and the masks through the motion encoder."""
    counts = {"subject": 0, "motion": 0}
    reference, motion = lab.pack("nodes.host.reference"), lab.pack("dv2_core.model").MotionModule
    features, encode = reference.subject_features, motion.encode

    def counted_features(*args: Any, **kwargs: Any) -> Any:
        counts["subject"] += 1
        return features(*args, **kwargs)

    def counted_encode(*args: Any, **kwargs: Any) -> Any:
        counts["motion"] += 1
        return encode(*args, **kwargs)

    monkeypatch.setattr(reference, "subject_features", counted_features)
    monkeypatch.setattr(motion, "encode", counted_encode)
    return counts


def caches(model: Any, conditioning: Any) -> list[Any]:
    """What a run must not leave behind: the subject's keys and values, the motion hints."""
    import comfy.patcher_extension

    wrappers = model.wrappers[comfy.patcher_extension.WrappersMP.APPLY_MODEL]
    subjects = [reference for found in wrappers.values() for reference in found]
    controls = [settings["control"] for _, settings in conditioning]
    return [reference.rows for reference in subjects] + [control.hints for control in controls]


@pytest.mark.parametrize(("steps", "cfg", "subject"), [(1, 2.0, 2), (4, 2.0, 2), (4, 1.0, 1)])
def test_the_subject_is_computed_once_per_text_and_the_boxes_once_per_run(
    lab: Any, passes: dict[str, int], steps: int, cfg: float, subject: int
) -> None:
    lab.whole(lab.load(), lab.adapter(), steps=steps, cfg=cfg)
    assert passes == {"subject": subject, "motion": 1}


@pytest.mark.parametrize("motion", ["same", "drop"])
def test_a_branch_without_the_subject_computes_none_of_it(
    lab: Any, passes: dict[str, int], motion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """motion "same": both branches are in one batch; "drop": each has a pass of its own."""
    attention, rows = lab.pack("dv2_core.model.reference").ReferenceAttention, set()
    forward = attention.forward

    def counted(self: Any, z: torch.Tensor, *args: Any) -> torch.Tensor:
        rows.add(z.shape[0])
        return forward(self, z, *args)

    monkeypatch.setattr(attention, "forward", counted)
    settings = {"ref_uncond": "drop", "motion_uncond": motion}
    lab.whole(lab.load(), lab.adapter(lab.relabel(lab.ADAPTER, f"alone-{motion}.safetensors", settings)))
    assert passes == {"subject": 1, "motion": 1} and rows == {lab.FRAMES}


def test_the_subject_is_computed_once_per_text_when_the_texts_run_apart(
    lab: Any, passes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = lab.load(), lab.adapter()
    monkeypatch.setattr(type(base.model.model), "memory_required", lambda *_, **__: float("inf"))
    lab.whole(base, adapter, steps=3)
    assert passes == {"subject": 2, "motion": 1}


def test_with_the_policy_video_the_subject_is_computed_once_per_text_and_step(lab: Any, passes: dict[str, int]) -> None:
    name = lab.relabel(lab.ADAPTER, "per-step.safetensors", {"ref_timestep": "video"})
    per_step = lab.whole(lab.load(), lab.adapter(name), steps=3)
    assert passes == {"subject": 6, "motion": 1}
    assert lab.relative_error(per_step, lab.whole(lab.load(), lab.adapter(), steps=3)) > 1e-3


def test_a_run_leaves_no_keys_values_or_hints_behind(lab: Any, passes: dict[str, int]) -> None:
    base, adapter = lab.load(), lab.adapter()
    model = lab.refer(base.model, adapter, base.vae)
    positive, negative = lab.move(base.positive, base.negative, adapter)
    lab.sample(model, positive, negative)
    assert not any(caches(model, positive + negative))
    lab.sample(model, positive, negative)  # and the next run computes its own
    assert passes == {"subject": 4, "motion": 2}


def test_a_failed_run_leaves_no_keys_and_values_behind(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter = lab.load(), lab.adapter()
    model = lab.refer(base.model, adapter, base.vae)
    positive, negative = lab.move(base.positive, base.negative, adapter)
    undisturbed = lab.sample(model, positive, negative)
    with monkeypatch.context() as patch:

        def fail(*_: Any, **__: Any) -> None:
            raise MemoryError("enough")

        patch.setattr(lab.pack("nodes.host.base").HostUNet3D, "forward", fail)
        with pytest.raises(MemoryError, match="enough"):
            lab.sample(model, positive, negative)
    subject_rows, *_ = caches(model, positive)
    assert not subject_rows
    assert torch.equal(lab.sample(model, positive, negative), undisturbed)


@pytest.mark.parametrize("half", ["ref", "motion"])
@pytest.mark.parametrize("policy", ["drop", "same"])
def test_the_unconditional_branch_sees_the_adapter_unless_its_settings_say_drop(
    lab: Any, half: str, policy: str
) -> None:
    """At CFG 0 the unconditional branch alone decides."""
    name = lab.relabel(lab.ADAPTER, f"{half}-{policy}.safetensors", {f"{half}_uncond": policy})
    base, adapter = lab.load(), lab.adapter(name)
    model, conds = base.model, (base.positive, base.negative)
    plain = unconditional(lab, model, *conds)
    if half == "ref":
        model = lab.refer(model, adapter, base.vae)
    else:
        conds = lab.move(*conds, adapter)
    error = lab.relative_error(unconditional(lab, model, *conds), plain)
    assert error < 1e-5 if policy == "drop" else error > 1e-3


def unconditional(lab: Any, model: Any, positive: Any, negative: Any) -> torch.Tensor:
    settings = dict(seed=1, steps=2, cfg=0.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    inputs = dict(model=model, positive=positive, negative=negative, latent_image=lab.latent())
    return lab.call("KSampler", **inputs, **settings)[0]["samples"]


def test_each_half_of_an_adapter_loads_and_works_alone(lab: Any) -> None:
    base, whole = lab.load(), lab.adapter()
    ref = lab.adapter(lab.relabel(lab.ADAPTER, "ref-only.safetensors", {"components": ["ref"]},
                                  lambda key: key.startswith("ref.")))  # fmt: skip
    motion = lab.adapter(lab.relabel(lab.ADAPTER, "motion-only.safetensors", {"components": ["motion"]},
                                     lambda key: not key.startswith("ref.")))  # fmt: skip
    model = lab.refer(base.model, ref, base.vae)
    conds = lab.move(base.positive, base.negative, motion)
    assert torch.equal(lab.sample(model, *conds), lab.whole(base, whole))
    with pytest.raises(ValueError, match="motion-only.safetensors has no reference attention"):
        lab.refer(base.model, motion, base.vae)
    with pytest.raises(ValueError, match="ref-only.safetensors has no motion module"):
        lab.move(base.positive, base.negative, ref)


def test_the_sampler_takes_steps_and_cfg_from_the_adapter_when_they_are_zero(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    assert (adapter.config.steps, adapter.config.cfg) == (3, 2.5)
    own = lab.sample(base.model, base.positive, base.negative, steps=0, cfg=0.0, adapter=adapter)
    named = lab.sample(base.model, base.positive, base.negative, steps=3, cfg=2.5)
    assert torch.equal(own, named)

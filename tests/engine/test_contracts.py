"""The contracts of the nodes: what changes nothing changes no bit, and what must not matter does not."""

import hashlib
from typing import Any

import pytest
import torch


def digest(value: Any) -> str:
    """Name of everything that tensors, containers and plain values hold."""
    total = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            total.update(str((item.dtype, tuple(item.shape))).encode())
            total.update(item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, dict):
            for key in item:
                total.update(str(key).encode())
                add(item[key])
        elif isinstance(item, (list, tuple)):
            total.update(str(len(item)).encode())
            for part in item:
                add(part)
        else:
            total.update(repr(item).encode())

    add(value)
    return total.hexdigest()


def state(model: Any) -> str:
    """Name of all that a MODEL holds: weights, patches, options, wrappers, callbacks, additional models."""
    return digest([
        model.model.state_dict(), model.model_options, model.patches, model.object_patches, model.wrappers,
        model.callbacks, model.additional_models, model.attachments, model.injections,
    ])  # fmt: skip


@pytest.mark.parametrize("silenced", ["strength 0", "start = end", "zero-initialised", "not connected"])
def test_a_silent_adapter_is_bit_identical_to_the_unpatched_model(lab: Any, silenced: str) -> None:
    base, adapter = lab.load(), lab.adapter()
    plain = lab.sample(base.model, base.positive, base.negative)
    changes: dict[str, Any] = {"strength 0": {"strength": 0.0}, "start = end": {"start": 0.4, "end": 0.4}}.get(
        silenced, {}
    )
    if silenced == "zero-initialised":
        silence(adapter)
    if silenced == "not connected":
        model, conds = base.model, (base.positive, base.negative)
    else:
        model = lab.refer(base.model, adapter, base.vae, **changes)
        conds = lab.move(base.positive, base.negative, adapter, **changes)
    assert torch.equal(lab.sample(model, *conds), plain)


@torch.inference_mode()
def silence(adapter: Any) -> None:
    """What the trainer starts from: output projections and zero convolutions at zero."""
    for half in ("ref", "motion"):
        for parameter in outputs(adapter, half):
            parameter.zero_()


def outputs(adapter: Any, half: str) -> list[torch.Tensor]:
    """The parameters of the layers through which a half of the adapter adds to the video."""
    if half == "ref":
        return [p for name, p in adapter.ref.model.named_parameters() if "to_out" in name]
    net = adapter.motion.model.controlnet
    return [*net.zero_convs.parameters(), *net.middle_block_out.parameters()]


def test_each_half_of_the_adapter_changes_the_video(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    plain = lab.sample(base.model, base.positive, base.negative)
    referred = lab.sample(lab.refer(base.model, adapter, base.vae), base.positive, base.negative)
    moved = lab.sample(base.model, *lab.move(base.positive, base.negative, adapter))
    both = lab.whole(base, adapter)
    for one, other in ((plain, referred), (plain, moved), (referred, both), (moved, both)):
        assert lab.relative_error(one, other) > 1e-2


def test_outside_start_and_end_the_adapter_is_silent(lab: Any) -> None:
    """Acting in the first half of the steps only is a run with the adapter, continued without it."""
    base, adapter = lab.load(), lab.adapter()
    model = lab.refer(base.model, adapter, base.vae, end=0.5)
    conds = lab.move(base.positive, base.negative, adapter, end=0.5)
    (sigmas,) = lab.call("DV2DDIMSigmas", model=base.model, steps=4, denoise=1.0)
    switch = float(base.model.get_model_object("model_sampling").percent_to_sigma(0.5))
    after = sum(float(s) >= switch for s in sigmas[:-1])  # steps that are still under the adapter
    assert 0 < after < 4

    def run(model: Any, conds: Any, sigmas: torch.Tensor, latent: Any, add_noise: bool) -> Any:
        (sampler,) = lab.call("KSamplerSelect", sampler_name="euler")
        return lab.call("SamplerCustom", model=model, add_noise=add_noise, noise_seed=3, cfg=2.0, positive=conds[0],
                        negative=conds[1], sampler=sampler, sigmas=sigmas, latent_image=latent)[0]  # fmt: skip

    whole = run(model, conds, sigmas, lab.latent(), True)["samples"]
    always = lab.refer(base.model, adapter, base.vae), lab.move(base.positive, base.negative, adapter)
    half = run(*always, sigmas[: after + 1], lab.latent(), True)
    rest = run(base.model, (base.positive, base.negative), sigmas[after:], half, False)["samples"]
    assert lab.relative_error(whole, rest) < 1e-4


@pytest.mark.parametrize("half", ["ref", "motion"])
def test_half_the_strength_is_half_of_what_the_adapter_adds(lab: Any, half: str) -> None:
    base, adapter = lab.load(), lab.adapter()

    def run(strength: float) -> torch.Tensor:
        model, conds = base.model, (base.positive, base.negative)
        if half == "ref":
            model = lab.refer(model, adapter, base.vae, strength=strength)
        else:
            conds = lab.move(*conds, adapter, strength=strength)
        return lab.sample(model, *conds)

    by_strength = run(0.5)
    with torch.inference_mode():
        for parameter in outputs(adapter, half):
            parameter *= 0.5
    assert lab.relative_error(by_strength, run(1.0)) < 1e-5


def test_lambda_m_of_one_and_an_all_one_mask_equal_no_mask(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    unmasked = lab.sample(lab.refer(base.model, adapter, base.vae, masks=None), base.positive, base.negative)
    everywhere = lab.refer(base.model, adapter, base.vae, lambda_m=1.0)
    ones = lab.refer(base.model, adapter, base.vae, masks=torch.ones(lab.FRAMES, 64, 64), lambda_m=0.3)
    assert torch.equal(lab.sample(everywhere, base.positive, base.negative), unmasked)
    assert torch.equal(lab.sample(ones, base.positive, base.negative), unmasked)
    masked = lab.refer(base.model, adapter, base.vae)
    assert not torch.equal(lab.sample(masked, base.positive, base.negative), unmasked)


def test_an_all_zero_mask_with_lambda_m_of_zero_equals_no_reference_attention(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    plain = lab.sample(base.model, base.positive, base.negative)
    nowhere = lab.refer(base.model, adapter, base.vae, masks=torch.zeros(lab.FRAMES, 64, 64), lambda_m=0.0)
    assert torch.equal(lab.sample(nowhere, base.positive, base.negative), plain)


def test_lambda_m_of_minus_one_is_the_adapters_own(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    own = lab.refer(base.model, adapter, base.vae, lambda_m=-1.0)
    same = lab.refer(base.model, adapter, base.vae, lambda_m=adapter.config.lambda_m)
    assert torch.equal(lab.sample(own, base.positive, base.negative), lab.sample(same, base.positive, base.negative))


@pytest.mark.parametrize("name", ["tiny.safetensors", "uncond-drop.safetensors"])
def test_split_conditional_and_unconditional_passes_equal_the_batched_one(
    lab: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != lab.ADAPTER:
        lab.relabel(lab.ADAPTER, name, {"ref_uncond": "drop"})
    base, adapter = lab.load(), lab.adapter(name)
    rows = count_rows(lab, monkeypatch)
    batched = lab.whole(base, adapter)
    assert rows == [2 * lab.FRAMES] * 2
    rows.clear()
    monkeypatch.setattr(type(base.model.model), "memory_required", lambda *_, **__: float("inf"))
    split = lab.whole(base, adapter)
    assert rows == [lab.FRAMES] * 4
    assert lab.relative_error(split, batched) < 1e-5


def count_rows(lab: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every denoising pass."""
    host, rows = lab.pack("nodes.host.base").HostUNet3D, []
    forward = host.forward

    def counted(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows.append(x.shape[0])
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(host, "forward", counted)
    return rows


@pytest.mark.parametrize("motion_uncond", ["same", "drop"])
def test_two_videos_in_a_batch_equal_two_runs(lab: Any, motion_uncond: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.sample

    name = lab.relabel(lab.ADAPTER, f"motion-{motion_uncond}.safetensors", {"motion_uncond": motion_uncond})
    base, adapter = lab.load(), lab.adapter(name)
    videos = lab.noise(2, lab.FRAMES, 24, 8, 8)
    given: list[torch.Tensor] = []
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *_: given[-1])
    for reference in (False, True):
        model = lab.refer(base.model, adapter, base.vae) if reference else base.model
        conds = lab.move(base.positive, base.negative, adapter)
        given.append(videos.flatten(0, 1))
        together = lab.sample(model, *conds, lab.latent(2 * lab.FRAMES))
        for n in range(2):
            given.append(videos[n])
            alone = lab.sample(model, *conds)
            assert lab.relative_error(together[n * lab.FRAMES : (n + 1) * lab.FRAMES], alone) < 1e-5


def test_a_repeated_run_is_identical(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    model = lab.refer(base.model, adapter, base.vae)
    conds = lab.move(base.positive, base.negative, adapter)
    first = lab.sample(model, *conds)
    assert torch.equal(lab.sample(model, *conds), first)
    assert torch.equal(lab.whole(lab.load(), lab.adapter()), first)


def test_no_node_changes_the_model_the_conditioning_or_the_weights_it_is_given(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    given = {
        "model": lambda: state(base.model),
        "positive": lambda: digest(base.positive),
        "negative": lambda: digest(base.negative),
        "reference": lambda: state(adapter.ref),
        "motion": lambda: state(adapter.motion),
        "vae": lambda: digest(base.vae.first_stage_model.state_dict()),
    }
    before = {name: take() for name, take in given.items()}
    lab.sample(base.model, base.positive, base.negative)
    model = lab.refer(base.model, adapter, base.vae)
    patched = state(model)
    conds = lab.move(base.positive, base.negative, adapter)
    conditioned = digest(conds)
    latent = lab.latent()
    lab.sample(model, *conds, latent)
    lab.call("DV2DDIMSigmas", model=model, steps=4, denoise=1.0)
    lab.refer(model, adapter, base.vae, subject=lab.subject(8))
    lab.move(*conds, adapter)
    assert {name: take() for name, take in given.items()} == before
    assert (state(model), digest(conds)) == (patched, conditioned)
    assert not latent["samples"].any() and set(latent) <= {"samples", "downscale_ratio_spacial"}


def test_clone_unload_and_reload_change_nothing(lab: Any) -> None:
    import comfy.model_management

    base, adapter = lab.load(), lab.adapter()
    model = lab.refer(base.model, adapter, base.vae)
    conds = lab.move(base.positive, base.negative, adapter)
    first = lab.sample(model, *conds)
    assert torch.equal(lab.sample(model.clone().clone(), *conds), first)
    comfy.model_management.unload_all_models()
    assert torch.equal(lab.sample(model, *conds), first)
    comfy.model_management.unload_all_models()
    assert torch.equal(lab.sample(model.clone(), *conds), first)


def test_a_clone_shares_the_adapters_weights(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    clone = lab.refer(base.model, adapter, base.vae).clone()
    (additional,) = [m for models in clone.additional_models.values() for m in models]
    assert additional.model is adapter.ref.model
    assert clone.model is base.model.model


def test_two_subjects_can_be_stacked_and_each_acts_in_its_own_boxes(lab: Any) -> None:
    base, adapter = lab.load(), lab.adapter()
    one = lab.refer(base.model, adapter, base.vae)
    two = lab.refer(one, adapter, base.vae, subject=lab.subject(8), masks=lab.masks(boxes=str([[30, 4, 60, 30]] * 8)))
    alone, both = (lab.sample(m, base.positive, base.negative) for m in (one, two))
    assert lab.relative_error(alone, both) > 1e-3
    assert torch.equal(lab.sample(one, base.positive, base.negative), alone)

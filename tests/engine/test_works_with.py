"""Stock nodes around ours: samplers, LoRA, ControlNet, regional prompts, context windows, patches, caches, dtypes."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def ready(lab: Any) -> SimpleNamespace:
    """Base, adapter, and the MODEL and CONDITIONING with both halves of the method."""
    base, adapter = lab.load(), lab.adapter()
    positive, negative = lab.move(base.positive, base.negative, adapter)
    model = lab.refer(base.model, adapter, base.vae)
    return SimpleNamespace(base=base, adapter=adapter, model=model, positive=positive, negative=negative)


def ksampler(lab: Any, model: Any, positive: Any, negative: Any, latent: Any = None, **changes: Any) -> torch.Tensor:
    settings: dict[str, Any] = dict(seed=1, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    inputs = dict(model=model, positive=positive, negative=negative, latent_image=latent or lab.latent())
    return lab.call("KSampler", **inputs, **{**settings, **changes})[0]["samples"]


def test_the_main_job_runs_as_a_prompt_and_a_second_run_is_wholly_cached(lab: Any) -> None:
    graph, ids = lab.graph()
    first = lab.run(graph)
    assert first["ok"]
    assert lab.output(first, ids["sampler"])["samples"].shape == (8, 24, 8, 8)
    second = lab.run(graph)
    (cached,) = [data["nodes"] for event, data in second["messages"] if event == "execution_cached"]
    assert set(cached) == set(graph)


def test_all_stock_samplers_run_as_prompts_and_ours_gives_the_same_through_each(lab: Any) -> None:
    graph, ids = lab.graph()
    model, latent = (ids["reference"], 0), (ids["latent"], 0)
    conds = dict(positive=(ids["motion"], 0), negative=(ids["motion"], 1))
    sigmas = (graph.add("DV2DDIMSigmas", model=model, steps=2, denoise=1.0), 0)
    sampler = (graph.add("DV2DDIMSampler"), 0)
    noise = (graph.add("RandomNoise", noise_seed=1), 0)
    guider = (graph.add("CFGGuider", model=model, **conds, cfg=2.0), 0)
    made = {
        "custom": graph.add("SamplerCustom", model=model, add_noise=True, noise_seed=1, cfg=2.0, **conds,
                            sampler=sampler, sigmas=sigmas, latent_image=latent),
        "advanced": graph.add("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas,
                              latent_image=latent),
        "ksampler": graph.add("KSampler", model=model, **conds, latent_image=latent, seed=1, steps=2, cfg=2.0,
                              sampler_name="euler", scheduler="normal", denoise=1.0),
    }  # fmt: skip
    for node_id in made.values():
        graph.add("SaveLatent", samples=(node_id, 0), filename_prefix="engine")
    result = lab.run(graph)
    assert result["ok"]
    ours = lab.output(result, ids["sampler"])["samples"]
    assert torch.equal(lab.output(result, made["custom"])["samples"], ours)
    assert torch.equal(lab.output(result, made["advanced"])["samples"], ours)
    stock = lab.output(result, made["ksampler"])["samples"]
    assert stock.shape == ours.shape and bool(torch.isfinite(stock).all())


def test_at_cfg_one_the_unconditional_branch_does_not_matter(lab: Any, ready: SimpleNamespace) -> None:
    one = ksampler(lab, ready.model, ready.positive, ready.negative, cfg=1.0)
    same = ksampler(lab, ready.model, ready.positive, ready.base.positive, cfg=1.0)
    assert torch.equal(one, same)


@pytest.mark.parametrize("sampler", ["ours", "stock"])
def test_video_to_video_starts_from_the_given_frames(lab: Any, ready: SimpleNamespace, sampler: str) -> None:
    frames = lab.subject(9).expand(lab.FRAMES, -1, -1, -1)
    (latent,) = lab.call("VAEEncode", vae=ready.base.vae, pixels=frames)

    def run(denoise: float) -> torch.Tensor:
        conds = (ready.positive, ready.negative)
        if sampler == "ours":
            return lab.sample(ready.model, *conds, latent, denoise=denoise)
        return ksampler(lab, ready.model, *conds, latent, denoise=denoise)

    distances = [lab.relative_error(run(denoise), latent["samples"]) for denoise in (0.0, 0.05, 0.6)]
    assert distances[0] < 1e-6
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("sampler", ["ours", "stock"])
def test_inpainting_keeps_the_frames_outside_the_mask(lab: Any, ready: SimpleNamespace, sampler: str) -> None:
    (latent,) = lab.call("VAEEncode", vae=ready.base.vae, pixels=lab.subject(9).expand(lab.FRAMES, -1, -1, -1))
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1.0
    (masked,) = lab.call("SetLatentNoiseMask", samples=latent, mask=mask)
    run = lab.sample if sampler == "ours" else lambda *args: ksampler(lab, *args)
    samples = run(ready.model, ready.positive, ready.negative, masked)
    assert lab.relative_error(samples[..., :4], latent["samples"][..., :4]) < 1e-5
    assert lab.relative_error(samples[..., 4:], latent["samples"][..., 4:]) > 1e-1


def write_lora(lab: Any, name: str, style: str) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 on layers of every kind; returns what it adds to the base's weights."""
    weights = load_file(lab.models / "diffusion_models" / lab.BASE)
    layers = [
        "input_blocks.1.0.in_layers.2", "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k", "input_blocks.1.2.proj_in", "middle_block.1.proj_out",
        "output_blocks.0.2.transformer_blocks.0.ff.net.2", "time_embed.0", "output_blocks.1.0.temopral_conv.conv2.3",
    ]  # fmt: skip
    lora, added = {}, {}
    for n, layer in enumerate(layers):
        weight = weights[f"{layer}.weight"]
        shape, kernel = weight.shape, (1,) * (weight.ndim - 2)
        up = lab.noise(shape[0], 2, *kernel, seed=20 + n)
        down = lab.noise(2, *shape[1:], seed=40 + n) / weight[0].numel() ** 0.5
        if style == "kohya":
            key = "lora_unet_" + layer.replace(".", "_")
            lora |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(1.0)}
            scale = 0.5  # alpha / rank
        else:
            key = f"diffusion_model.{layer}"
            lora |= {f"{key}.lora_B.weight": up, f"{key}.lora_A.weight": down}
            scale = 1.0
        added[f"{layer}.weight"] = scale * (up.flatten(1) @ down.flatten(1)).reshape(shape)
    save_file(lora, lab.models / "loras" / name)
    return added


def write_merged(lab: Any, name: str, added: dict[str, torch.Tensor], strength: float) -> None:
    path = lab.models / "diffusion_models" / lab.BASE
    weights = {k: v.float() + strength * added.get(k, torch.zeros(())) for k, v in load_file(path).items()}
    save_file(weights, path.with_name(name), metadata=lab.metadata(path))


@pytest.mark.parametrize("style", ["kohya", "diffusion_model"])
def test_a_lora_equals_merged_weights_for_the_video_and_for_the_subject(lab: Any, style: str) -> None:
    added = write_lora(lab, f"{style}.safetensors", style)
    write_merged(lab, f"merged-{style}.safetensors", added, 0.7)
    base, merged, adapter = lab.load(), lab.load(unet=f"merged-{style}.safetensors"), lab.adapter()
    expected = lab.whole(merged, adapter)
    settings = dict(clip=base.clip, lora_name=f"{style}.safetensors", strength_model=0.7, strength_clip=0.0)
    conds = lab.move(base.positive, base.negative, adapter)
    before = lab.refer(lab.call("LoraLoader", model=base.model, **settings)[0], adapter, base.vae)
    after = lab.call("LoraLoader", model=lab.refer(base.model, adapter, base.vae), **settings)[0]
    for model in (before, after):
        assert lab.relative_error(lab.sample(model, *conds), expected) < 1e-4
    assert lab.relative_error(lab.whole(base, adapter), expected) > 1e-2


def test_the_subject_goes_through_the_weights_with_the_lora(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys and values of the run with the LoRA, not only its video, are those of the merged weights."""
    added = write_lora(lab, "seen.safetensors", "diffusion_model")
    write_merged(lab, "merged-seen.safetensors", added, 1.0)
    reference, seen = lab.pack("nodes.host.reference"), []
    features = reference.subject_features

    def recorded(*args: Any, **kwargs: Any) -> Any:
        seen.append(features(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(reference, "subject_features", recorded)
    base, adapter = lab.load(), lab.adapter()
    patched = lab.call("LoraLoaderModelOnly", model=base.model, lora_name="seen.safetensors", strength_model=1.0)[0]
    for loaded, model in ((base, patched), (merged := lab.load(unet="merged-seen.safetensors"), merged.model)):
        lab.sample(lab.refer(model, adapter, loaded.vae), loaded.positive, loaded.negative, steps=1, cfg=1.0)
    with_lora, with_merged = seen
    assert set(with_lora) == set(with_merged)
    assert all(lab.relative_error(with_lora[site], with_merged[site]) < 1e-4 for site in with_lora)


def other_control() -> Any:
    """A stock ControlBase with known residuals: 0.5 on the last skip and in the middle."""
    import comfy.controlnet

    class Known(comfy.controlnet.ControlBase):
        def copy(self) -> Any:
            other = Known()
            self.copy_to(other)
            return other

        def get_control(self, x_noisy: torch.Tensor, t: Any, cond: Any, batched: int, options: Any) -> Any:
            previous = None
            if self.previous_controlnet is not None:
                previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched, options)
            rows = x_noisy.shape[0]
            control = {
                "output": [None, None, None, torch.full((rows, 64, 4, 4), 0.5)],
                "middle": [torch.full((rows, 64, 4, 4), 0.5)],
            }
            return self.control_merge(control, previous, output_dtype=None)

    return Known()


def test_a_stock_controlnet_before_or_after_the_motion_encoder_adds_to_it(
    lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, seen = lab.pack("nodes.host.base").HostUNet3D, []
    forward = host.forward

    def recorded(self: Any, x: Any, t: Any, context: Any, num_video_frames: int = 1, control: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        seen.append({name: list(rows) for name, rows in control.items()})
        return forward(self, x, t, context, num_video_frames, control, **kwargs)

    monkeypatch.setattr(host, "forward", recorded)

    def stock(positive: Any, negative: Any) -> Any:
        inputs = dict(positive=positive, negative=negative, control_net=other_control(), image=lab.subject())
        return lab.call("ControlNetApplyAdvanced", **inputs, strength=0.5, start_percent=0.0, end_percent=1.0)

    plain = ready.base.positive, ready.base.negative
    chains = {
        "motion": (ready.positive, ready.negative),
        "stock": stock(*plain),
        "stock first": lab.move(*stock(*plain), ready.adapter),
        "motion first": stock(ready.positive, ready.negative),
    }
    videos = {name: lab.sample(ready.model, *conds, steps=1) for name, conds in chains.items()}
    alone, known, first, second = seen  # one pass each: cond and uncond are batched
    for both in (first, second):
        for name in ("output", "middle"):
            for n, total in enumerate(both[name]):
                other = known[name][n] if n < len(known[name]) else None
                expected = alone[name][n] if other is None else alone[name][n] + other
                assert lab.relative_error(total, expected) < 1e-6
        assert float(known["middle"][0].mean()) == 0.25  # 0.5 at strength 0.5, once
    assert torch.equal(videos["stock first"], videos["motion first"])
    assert not torch.equal(videos["stock first"], videos["motion"])


def test_regional_prompts_of_one_text_equal_the_plain_prompt(lab: Any, ready: SimpleNamespace) -> None:
    expected = lab.sample(ready.model, ready.positive, ready.negative)
    assert lab.relative_error(regional(lab, ready, ready.base.positive, ready.base.positive), expected) < 1e-5


def test_regional_prompts_have_their_own_text_in_the_subjects_pass(
    lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, texts = lab.pack("nodes.host.reference"), []
    features = reference.subject_features

    def recorded(unet: Any, latent: Any, time: Any, text: torch.Tensor, *others: Any) -> Any:
        texts.append(text)
        return features(unet, latent, time, text, *others)

    monkeypatch.setattr(reference, "subject_features", recorded)
    (other,) = lab.call("CLIPTextEncode", clip=ready.base.clip, text="a blue dog")
    mixed = regional(lab, ready, ready.base.positive, other)
    assert lab.relative_error(mixed, lab.sample(ready.model, ready.positive, ready.negative)) > 1e-3
    given = [ready.base.positive[0][0], other[0][0], ready.base.negative[0][0]]
    assert len(texts) == 5  # three texts of the regional run, two of the plain one
    for text in given:
        assert any(torch.equal(text, seen) for seen in texts[:3])


def regional(lab: Any, ready: SimpleNamespace, left: Any, right: Any) -> torch.Tensor:
    """Two texts, one for each half of the picture, with the motion encoder after them."""
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1.0
    settings = dict(strength=1.0, set_cond_area="default")
    (left,) = lab.call("ConditioningSetMask", conditioning=left, mask=mask, **settings)
    (right,) = lab.call("ConditioningSetMask", conditioning=right, mask=1.0 - mask, **settings)
    (both,) = lab.call("ConditioningCombine", conditioning_1=left, conditioning_2=right)
    return lab.sample(ready.model, *lab.move(both, ready.base.negative, ready.adapter))


def test_context_windows_equal_runs_of_each_window_with_its_own_masks(
    lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.sample

    base, adapter, half = ready.base, ready.adapter, lab.FRAMES
    masks, noise = lab.masks(2 * half), lab.noise(2 * half, 24, 8, 8)
    given = [noise]
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *_: given[-1])
    encoder, counted = lab.pack("dv2_core.model").MotionModule, []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda *args: (counted.append(1), encode(*args))[1])

    def run(model: Any, masks: torch.Tensor, frames: int) -> torch.Tensor:
        model = lab.refer(model, adapter, base.vae, masks=masks)
        return lab.sample(model, *lab.move(base.positive, base.negative, adapter, masks=masks), lab.latent(frames))

    (windowed,) = lab.call(
        "ContextWindowsManual", model=base.model, context_length=half, context_overlap=0, context_stride=1, dim=0,
        context_schedule="standard_static", closed_loop=False, fuse_method="pyramid",
    )  # fmt: skip
    whole = run(windowed, masks, 2 * half)
    assert len(counted) == 2  # once per window, not once per window and step
    for n in range(2):
        rows = slice(n * half, (n + 1) * half)
        given.append(noise[rows])
        assert lab.relative_error(whole[rows], run(base.model, masks[rows], half)) < 1e-5


def test_overlapping_context_windows_run_and_too_few_masks_for_them_are_refused(
    lab: Any, ready: SimpleNamespace
) -> None:
    (windowed,) = lab.call(
        "ContextWindowsManual", model=ready.base.model, context_length=8, context_overlap=4, context_stride=1, dim=0,
        context_schedule="looped_uniform", closed_loop=True, fuse_method="pyramid",
    )  # fmt: skip
    masks = lab.masks(12)
    model = lab.refer(windowed, ready.adapter, ready.base.vae, masks=masks)
    conds = lab.move(ready.base.positive, ready.base.negative, ready.adapter, masks=masks)
    assert bool(torch.isfinite(lab.sample(model, *conds, lab.latent(12))).all())
    few = lab.refer(windowed, ready.adapter, ready.base.vae)
    with pytest.raises(ValueError, match="8 box masks"):
        lab.sample(few, ready.base.positive, ready.base.negative, lab.latent(12))


@pytest.mark.parametrize(("width", "height"), [(72, 56), (56, 120), (60, 60), (16, 24)])
def test_any_size_runs_with_both_halves(lab: Any, ready: SimpleNamespace, width: int, height: int) -> None:
    """Sizes that are no square, no multiple of 16 (an odd number of latent rows), and no multiple of 8."""
    boxes = f'{{"first": [0, 0, {width // 2}, {height // 2}], "last": [{width // 2}, 1, {width}, {height}]}}'
    masks = lab.masks(4, width, height, boxes)
    subject = lab.subject(width=width, height=height)
    model = lab.refer(ready.base.model, ready.adapter, ready.base.vae, masks=masks, subject=subject)
    conds = lab.move(ready.base.positive, ready.base.negative, ready.adapter, masks=masks)
    samples = lab.sample(model, *conds, lab.latent(4, width, height))
    assert samples.shape == (4, 24, height // 8, width // 8)
    assert bool(torch.isfinite(samples).all())


def test_one_frame_is_a_legal_video(lab: Any, ready: SimpleNamespace) -> None:
    masks = lab.masks(1, boxes='{"first": [4, 30, 28, 60], "last": [4, 30, 28, 60]}')
    model = lab.refer(ready.base.model, ready.adapter, ready.base.vae, masks=masks)
    conds = lab.move(ready.base.positive, ready.base.negative, ready.adapter, masks=masks)
    assert bool(torch.isfinite(lab.sample(model, *conds, lab.latent(1))).all())


@contextmanager
def core_settings(**changes: Any) -> Iterator[None]:
    """Command line flags of ComfyUI, as if it had been started with them."""
    from comfy.cli_args import args

    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setattr(args, name, value)
        yield


@pytest.mark.parametrize(("flag", "bound"), [("fp16_unet", 1e-5), ("bf16_unet", 5e-2)])
def test_weights_stored_in_half_precision_compute_in_single_precision(lab: Any, flag: str, bound: float) -> None:
    """The file itself is fp16, so that stored as fp16 nothing is lost."""
    base, adapter = lab.load(), lab.adapter()
    expected = lab.whole(base, adapter)
    with core_settings(**{flag: True}):
        stored = lab.load()
    unet = stored.model.model.diffusion_model
    assert base.model.model.manual_cast_dtype is None and base.model.model.get_dtype() == torch.float32
    assert stored.model.model.manual_cast_dtype == torch.float32
    assert {str(p.dtype) for p in unet.parameters()} == {"torch.float16" if flag == "fp16_unet" else "torch.bfloat16"}
    assert lab.relative_error(lab.whole(stored, adapter), expected) < bound


@pytest.mark.parametrize("flag", ["fp16_unet", "bf16_unet"])
def test_the_whole_method_computes_in_half_precision(lab: Any, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: no manual cast, so that every tensor of the forward must have the UNet's dtype."""
    import comfy.model_management

    expected = lab.whole(lab.load(), lab.adapter(), steps=1)
    monkeypatch.setattr(comfy.model_management, "unet_manual_cast", lambda *_, **__: None)
    with core_settings(**{flag: True}):
        stored = lab.load()
    assert stored.model.model.manual_cast_dtype is None
    assert lab.relative_error(lab.whole(stored, lab.adapter(), steps=1), expected) < 5e-2


def test_weights_left_in_slow_memory_give_the_same_video_with_and_without_a_lora(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low VRAM: the core leaves layers where they are and patches them as they are used."""
    from comfy.model_management import LoadedModel

    write_lora(lab, "low-vram.safetensors", "diffusion_model")
    settings = dict(lora_name="low-vram.safetensors", strength_model=1.0)

    def run(lora: bool) -> torch.Tensor:
        base = lab.load()
        if lora:
            (base.model,) = lab.call("LoraLoaderModelOnly", model=base.model, **settings)
        return lab.whole(base, lab.adapter())

    expected = [run(lora) for lora in (False, True)]
    load, partly = LoadedModel.model_load, set()

    def one_byte(self: Any, lowvram_model_memory: int = 0, **kwargs: Any) -> Any:
        out = load(self, 1, **kwargs)
        if self.model.model.model_lowvram:
            partly.add(type(self.model.model).__name__)
        return out

    monkeypatch.setattr(LoadedModel, "model_load", one_byte)
    for lora, video in zip((False, True), expected, strict=True):
        partly.clear()
        assert lab.relative_error(run(lora), video) < 1e-5
        assert {"ModelScopeT2V", "ReferenceAttentions", "MotionModule"} <= partly


def test_freeu_acts_on_the_video_and_not_on_the_subject(lab: Any, ready: SimpleNamespace) -> None:
    settings = dict(b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    (freed,) = lab.call("FreeU_V2", model=ready.model, **settings)
    plain = lab.sample(ready.model, ready.positive, ready.negative)
    assert lab.relative_error(lab.sample(freed, ready.positive, ready.negative), plain) > 1e-4
    (silent,) = lab.call("FreeU_V2", model=ready.model, b1=1.0, b2=1.0, s1=1.0, s2=1.0)
    assert lab.relative_error(lab.sample(silent, ready.positive, ready.negative), plain) < 1e-4


def test_easycache_skips_steps_of_the_video(lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    core, passes = lab.pack("dv2_core.model").UNet3D, []
    run = core.forward

    def counted(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        passes.append(x.shape[0])
        return run(self, x, *args, **kwargs)

    monkeypatch.setattr(core, "forward", counted)
    settings = dict(start_percent=0.0, end_percent=1.0, verbose=False)
    (cached,) = lab.call("EasyCache", model=ready.model, reuse_threshold=3.0, **settings)
    samples = lab.sample(cached, ready.positive, ready.negative, steps=6)
    assert bool(torch.isfinite(samples).all())
    assert passes.count(1) == 2  # the subject with each text
    assert 0 < passes.count(2 * lab.FRAMES) < 6


def test_previews_reach_the_page_at_every_step(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.utils
    from latent_preview import LatentPreviewMethod

    seen: list[Any] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: seen.append(preview))
    base, adapter = lab.load(unet=lab.SD_BASE, text=lab.SD_TEXT, vae=lab.SD_VAE), lab.adapter(lab.SD_ADAPTER)
    with core_settings(preview_method=LatentPreviewMethod.Latent2RGB):
        model = lab.refer(base.model, adapter, base.vae, masks=lab.masks(2))
        lab.sample(model, base.positive, base.negative, lab.latent(2))
        assert [preview[0] for preview in seen] == ["JPEG", "JPEG"]
        seen.clear()
        tiny = lab.load()
        lab.sample(tiny.model, tiny.positive, tiny.negative)
    assert len(seen) == 2

"""Stock nodes around ours: samplers, video to video, second passes, inpainting, regional prompts, sizes, previews."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch


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


@pytest.mark.parametrize("way", ["latent", "pixels"])
def test_a_second_pass_refines_the_enlarged_video_with_the_same_subject_and_boxes(
    lab: Any, ready: SimpleNamespace, way: str
) -> None:
    """ZeroScope XL's recipe: enlarge what a small base made, then part of the steps again at the larger size."""
    conds = (ready.positive, ready.negative)
    first = {"samples": lab.sample(ready.model, *conds)}
    if way == "latent":
        size = dict(width=96, height=80, crop="disabled")
        (larger,) = lab.call("LatentUpscale", samples=first, upscale_method="bicubic", **size)
    else:
        (frames,) = lab.call("VAEDecode", vae=ready.base.vae, samples=first)
        size = dict(width=96, height=80, crop="disabled")
        (frames,) = lab.call("ImageScale", image=frames, upscale_method="bicubic", **size)
        (larger,) = lab.call("VAEEncode", vae=ready.base.vae, pixels=frames)
    assert larger["samples"].shape == (lab.FRAMES, 24, 10, 12)
    second = lab.sample(ready.model, *conds, larger, steps=4, denoise=0.5)
    assert second.shape == larger["samples"].shape and bool(torch.isfinite(second).all())
    # Masks drawn at the new size are those of the first pass, enlarged: edges of boxes are all that differs.
    width, height = 96, 80
    boxes = '{"first": [6, 37.5, 42, 75], "last": [54, 7.5, 90, 45]}'  # lab.BOXES at that size
    masks = lab.masks(lab.FRAMES, width, height, boxes)
    model = lab.refer(ready.base.model, ready.adapter, ready.base.vae, masks=masks)
    again = lab.move(ready.base.positive, ready.base.negative, ready.adapter, masks=masks)
    drawn = lab.sample(model, *again, larger, steps=4, denoise=0.5)
    plain = lab.sample(ready.base.model, ready.base.positive, ready.base.negative, larger, steps=4, denoise=0.5)
    assert (second - drawn).square().mean() < 0.5 * (second - plain).square().mean()
    kept = lab.sample(ready.model, *conds, larger, denoise=0.0)
    assert lab.relative_error(kept, larger["samples"]) < 1e-6


def test_the_second_pass_may_use_another_base(lab: Any) -> None:
    base, other = (lab.load("auto", lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE) for _ in range(2))
    first = ksampler(lab, base.model, base.positive, base.negative, lab.latent(2))
    (frames,) = lab.call("VAEDecode", vae=base.vae, samples={"samples": first})
    (frames,) = lab.call("ImageScaleBy", image=frames, upscale_method="bicubic", scale_by=1.5)
    (larger,) = lab.call("VAEEncode", vae=other.vae, pixels=frames)
    second = ksampler(lab, other.model, other.positive, other.negative, larger, denoise=0.66)
    assert second.shape == (2, 4, 12, 12) and bool(torch.isfinite(second).all())


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


def test_previews_reach_the_page_at_every_step(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.utils
    from latent_preview import LatentPreviewMethod

    seen: list[Any] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: seen.append(preview))
    base, adapter = lab.load(unet=lab.SD_BASE, text=lab.SD_TEXT, vae=lab.SD_VAE), lab.adapter(lab.SD_ADAPTER)
    with lab.flags(preview_method=LatentPreviewMethod.Latent2RGB):
        model = lab.refer(base.model, adapter, base.vae, masks=lab.masks(2))
        lab.sample(model, base.positive, base.negative, lab.latent(2))
        assert [preview[0] for preview in seen] == ["JPEG", "JPEG"]
        seen.clear()
        tiny = lab.load()
        lab.sample(tiny.model, tiny.positive, tiny.negative)
    assert len(seen) == 2

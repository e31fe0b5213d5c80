"""What comes out of ComfyUI equals the plain modules of dv2_core, transformers and the patch PCA."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

PROMPTS = [
    "a red ball moving right",
    "",
    "A  Red, ball moving LEFT!",
    "a purple blue-dog",
    "a red ball " * 10,
]


def plain(lab: Any, unet: str, adapter: str, text: str) -> tuple[Any, Any, Any, Any]:
    """UNet3D, Adapter, CLIPTextModel and tokenizer of dv2_core and transformers, with the weights of the files."""
    from transformers import CLIPTextConfig, CLIPTextModel

    core = lab.pack("dv2_core.model")
    path = lab.models / "diffusion_models" / unet
    base = core.UNet3D(core.UNet3DConfig.from_dict(json.loads(lab.metadata(path)["dreamvideo2.unet"])))
    base.load_state_dict(load_file(path))
    config, _, weights = core.read_adapter(lab.models / "dreamvideo2" / adapter)
    module = core.Adapter(config)
    module.load_file_state_dict(weights)
    path = lab.models / "text_encoders" / text
    metadata = lab.metadata(path)
    encoder = CLIPTextModel(CLIPTextConfig(**json.loads(metadata["dreamvideo2.text"]), pad_token_id=0, bos_token_id=1))
    encoder.load_state_dict(load_file(path))
    tokenizer = lab.pack("dv2_core.world.text").WordTokenizer(json.loads(metadata["dreamvideo2.words"]))
    return base.eval(), module.eval(), encoder.eval(), tokenizer


@pytest.mark.parametrize(
    ("family", "prediction"),
    [
        ("tiny", "eps"),
        ("tiny", "v"),
        ("tiny", "v_zsnr"),
        ("tiny", "v_cosine_zsnr"),
        ("lite", "v"),
        ("placed", "v"),
        ("no boxes", "v"),
        ("no subject", "v"),
        ("nothing", "v"),
        ("sd", "eps"),
    ],
)
def test_the_sampler_node_equals_exact_ddim_on_the_plain_modules(lab: Any, family: str, prediction: str) -> None:
    """ "lite": every part of the adapter replaced by its smaller variant. "placed": hidden states and box positions;
    "no boxes", "no subject", "nothing": the same, with these dropped in the unconditional branch. "sd": all four levels
    of the full size, two blocks each, and Stable Diffusion's latents, which are scaled.
    """
    core = lab.pack("dv2_core.model")
    ddim_sample = lab.pack("dv2_core.diffusion").ddim_sample
    names, scale = (lab.BASE, lab.TEXT, lab.VAE), 1.0
    if family == "sd":
        names, scale = (lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE), 0.18215
    dropped = {"no boxes": ("motion",), "no subject": ("ref",), "nothing": ("ref", "motion")}.get(family, ())
    if dropped:
        settings = {f"{part}_uncond": "drop" for part in dropped}
        adapter_name = lab.relabel(lab.PLACED_ADAPTER, f"{family}.safetensors", settings)
    else:
        adapters = {"tiny": lab.ADAPTER, "lite": lab.LITE_ADAPTER, "placed": lab.PLACED_ADAPTER, "sd": lab.SD_ADAPTER}
        adapter_name = adapters[family]
    unet, adapter, encoder, tokenizer = plain(lab, names[0], adapter_name, names[1])
    frames, cfg, steps = lab.FRAMES, 2.5, 4
    masks = lab.masks()[:, None]
    pca = lab.pack("dv2_core.world.latent").PatchPCA.load(lab.models / f"{names[2]}.pca")
    texts = torch.tensor([tokenizer.encode(text) for text in (PROMPTS[0], "")])

    with torch.inference_mode():
        context = encoder(texts).last_hidden_state  # [2, 16, D]
        subject = scale * pca.encode(lab.subject().movedim(-1, 1)).expand(2, -1, -1, -1)
        features = core.subject_features(unet, subject, torch.zeros(2), context, adapter.config.ref_features)
        in_both, subject_in_both = ("motion" not in dropped) * 1.0, ("ref" not in dropped) * 1.0
        weight = core.blended_mask(masks, adapter.config.lambda_m)
        weight = torch.cat([weight, subject_in_both * (in_both * weight + 1.0 - in_both)])
        boxes = lab.pack("dv2_core.model.position").box_frames(masks)
        boxes = torch.cat([boxes, in_both * boxes])
        reference = core.Reference(adapter.ref, adapter.ref.keys_values(features), weight, boxes)

        def predict(x: torch.Tensor, t: int) -> torch.Tensor:
            x, times = x.repeat(2, 1, 1, 1), torch.full((2,), float(t))
            control = adapter.motion(x, masks.repeat(2, 1, 1, 1), times, context, frames)
            control = {
                name: [torch.cat([r[:frames], in_both * r[frames:]]) for r in rows] for name, rows in control.items()
            }
            options = {"patches": core.reference_patches(), "dv2_reference": reference}
            cond, uncond = unet(x, times, context, frames, control, options).chunk(2)
            return uncond + cfg * (cond - uncond)

        channels = unet.config.in_channels
        noise = torch.randn(frames, channels, 8, 8, generator=torch.Generator().manual_seed(11))
        expected = ddim_sample(predict, noise, steps, prediction) / scale

    made = lab.whole(lab.load(prediction, *names), lab.adapter(adapter_name), seed=11, steps=steps, cfg=cfg)
    # From sigma 4519 to 2.4 in one step of float32 leaves an error of 4519 / 2.4 roundings.
    assert lab.relative_error(made, expected) < (1e-3 if prediction == "v_cosine_zsnr" else 1e-4)


@pytest.mark.parametrize("steps", [1, 7, 50, 500, 1000])
def test_the_sampler_starts_from_the_very_noise_at_any_number_of_steps(lab: Any, steps: int) -> None:
    """With a network that predicts no noise, x only shrinks: the noise itself, times the ratio of the two signals."""
    base = lab.load("eps")
    unet = base.model.model.diffusion_model
    (sigmas,) = lab.call("DV2DDIMSigmas", model=base.model, steps=steps, denoise=1.0)
    (sampler,) = lab.call("DV2DDIMSampler")
    unet.forward = lambda x, *_, **__: torch.zeros_like(x)  # dies with this MODEL
    latent = lab.latent()
    ends = sigmas[[0, -1]]
    out = lab.call("SamplerCustom", model=base.model, add_noise=True, noise_seed=11, cfg=1.0, positive=base.positive,
                   negative=base.negative, sampler=sampler, sigmas=ends, latent_image=latent)[0]["samples"]  # fmt: skip
    noise = torch.randn(lab.FRAMES, 24, 8, 8, generator=torch.Generator().manual_seed(11))
    signal = 1 / (1 + ends.double() ** 2).sqrt()
    assert lab.relative_error(out, (noise * float(signal[1] / signal[0])).float()) < 1e-5


@pytest.mark.parametrize("prediction", ["eps", "v", "v_zsnr", "v_cosine_zsnr"])
@pytest.mark.parametrize("steps", [1, 8, 50])
def test_the_sigmas_node_equals_the_schedule(lab: Any, steps: int, prediction: str) -> None:
    base = lab.load(prediction)
    (sigmas,) = lab.call("DV2DDIMSigmas", model=base.model, steps=steps, denoise=1.0)
    expected = lab.pack("dv2_core.diffusion").ddim_sigmas(steps, prediction)
    assert float((sigmas / expected - 1).abs().max()) < 1e-4
    (half,) = lab.call("DV2DDIMSigmas", model=base.model, steps=steps, denoise=0.5)
    (whole,) = lab.call("DV2DDIMSigmas", model=base.model, steps=2 * steps, denoise=1.0)
    assert torch.equal(half, whole[-(steps + 1) :])
    assert lab.call("DV2DDIMSigmas", model=base.model, steps=steps, denoise=0.0)[0].numel() == 0


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_text_encoder_equals_transformers_on_the_same_file(lab: Any, prompt: str) -> None:
    *_, encoder, tokenizer = plain(lab, lab.BASE, lab.ADAPTER, lab.TEXT)
    clip = lab.load().clip
    expected = tokenizer.encode(prompt)
    (chunk,) = clip.tokenize(prompt)["l"]
    assert [token for token, _ in chunk] == expected
    with torch.inference_mode():
        hidden = encoder(torch.tensor([expected])).last_hidden_state
        ours = clip.encode_from_tokens(clip.tokenize(prompt))
    assert lab.relative_error(ours, hidden) < 1e-5


@pytest.mark.parametrize("vae", ["tiny-vae.safetensors", "sd-vae.safetensors"])
def test_the_vae_file_loads_in_the_stock_vae_loader_and_encodes_like_the_patch_pca(lab: Any, vae: str) -> None:
    pca = lab.pack("dv2_core.world.latent").PatchPCA.load(lab.models / f"{vae}.pca")
    (stock,) = lab.call("VAELoader", vae_name=vae)
    pictures = torch.rand(3, 72, 56, 3, generator=torch.Generator().manual_seed(4))
    (latent,) = lab.call("VAEEncode", vae=stock, pixels=pictures)
    assert lab.relative_error(latent["samples"], pca.encode(pictures.movedim(-1, 1))) < 1e-3
    (decoded,) = lab.call("VAEDecode", vae=stock, samples=latent)
    assert decoded.shape == (3, 72, 56, 3)


def test_the_bundled_files_load_together_and_make_frames(lab: Any) -> None:
    """The files of the template: same sizes, same latent channels, whatever their training has reached."""
    pack = Path(lab.pack("nodes.host.files").PACK) / "models"
    names = ("dv2-mini-base.safetensors", "dv2-mini-text.safetensors", "dv2-mini-vae.safetensors")
    for folder, name in zip(("diffusion_models", "text_encoders", "vae"), names, strict=True):
        assert (pack / folder / name).is_file()
    base, adapter = lab.load("auto", *names), lab.adapter("dv2-mini-adapter.safetensors")
    assert adapter.metadata["base_model.fingerprint"] == base.model.model.fingerprint
    samples = lab.whole(base, adapter, steps=1)
    assert samples.shape == (8, 24, 8, 8) and bool(torch.isfinite(samples).all())

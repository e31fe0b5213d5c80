"""LoRAs through the stock loaders: every style of names lands on the right weights, for video and subject."""

from typing import Any

import pytest
import torch

from tests.loras import LAYERS, write_lora, write_merged
from tests.oracles.public import diffusers_unet

SPATIAL = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v",
           "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")  # fmt: skip


def kohya(layer: str) -> str:
    return "lora_unet_" + layer.replace(".", "_")


@pytest.mark.parametrize("style", ["kohya", "peft"])
def test_a_lora_equals_merged_weights_for_the_video_and_for_the_subject(lab: Any, style: str) -> None:
    keys = {layer: kohya(layer) if style == "kohya" else f"diffusion_model.{layer}" for layer in LAYERS}
    added = write_lora(lab, f"{style}.safetensors", style, keys, lab.BASE)
    write_merged(lab, f"merged-{style}.safetensors", added, 0.7, lab.BASE)
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
    keys = {layer: f"diffusion_model.{layer}" for layer in LAYERS}
    added = write_lora(lab, "seen.safetensors", "peft", keys, lab.BASE)
    write_merged(lab, "merged-seen.safetensors", added, 1.0, lab.BASE)
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


def stable_diffusion() -> dict[str, str]:
    """Original name -> diffusers' name of the layers that LoRAs of Stable Diffusion 2.1 have: its 16 transformers."""
    sites = {f"down_blocks.{level}.attentions.{n}": f"input_blocks.{1 + 3 * level + n}.1" for level in range(3)
             for n in range(2)}  # fmt: skip
    sites |= {f"up_blocks.{level}.attentions.{n}": f"output_blocks.{3 * level + n}.1" for level in range(1, 4)
              for n in range(3)}  # fmt: skip
    sites["mid_block.attentions.0"] = "middle_block.1"
    inner = [*(f"transformer_blocks.0.{layer}" for layer in SPATIAL), "proj_in", "proj_out"]
    return {f"{ours}.{layer}": f"{theirs}.{layer}" for theirs, ours in sites.items() for layer in inner}


#: Of what an image UNet has not, or has elsewhere: original name -> diffusers' name.
VIDEO = {
    "input_blocks.0.1.proj_in": "transformer_in.proj_in",
    "input_blocks.2.2.transformer_blocks.0.ff.net.2": "down_blocks.0.temp_attentions.1.transformer_blocks.0.ff.net.2",
    "input_blocks.3.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.4.0.temopral_conv.conv3.3": "down_blocks.1.temp_convs.0.conv3.3",
    "middle_block.2.proj_out": "mid_block.temp_attentions.0.proj_out",
    "middle_block.3.in_layers.2": "mid_block.resnets.1.conv1",
    "output_blocks.5.3.conv": "up_blocks.1.upsamplers.0.conv",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "style"), [
    ("image", "kohya"), ("image", "peft"), ("image", "diffusers"), ("video", "kohya"), ("video", "peft"),
])  # fmt: skip
def test_a_lora_in_diffusers_names_equals_merged_weights(lab: Any, kind: str, style: str, caplog: Any) -> None:
    layers = stable_diffusion() if kind == "image" else VIDEO
    names = {
        "kohya": kohya,
        "peft": lambda layer: f"unet.{layer}",
        "diffusers": lambda layer: "unet." + layer.replace(".to_out.0", ".to_out").replace(".to_", ".processor.to_"),
    }
    keys = {ours: names[style](theirs) for ours, theirs in layers.items()}
    added = write_lora(lab, "named.safetensors", style, keys, lab.SD_BASE)
    write_merged(lab, "merged-named.safetensors", added, 1.0, lab.SD_BASE)
    base = lab.load("auto", lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE)
    merged = lab.load("auto", "merged-named.safetensors", lab.SD_TEXT, lab.SD_VAE)
    (patched,) = lab.call("LoraLoaderModelOnly", model=base.model, lora_name="named.safetensors", strength_model=1.0)
    assert "not loaded" not in caplog.text.lower()
    assert {key for key, patches in patched.patches.items() if patches} == {f"diffusion_model.{key}" for key in added}
    videos = [
        lab.sample(model, base.positive, base.negative, lab.latent(2), steps=1, cfg=1.0)
        for model in (patched, merged.model, base.model)
    ]
    assert lab.relative_error(videos[0], videos[1]) < 1e-4
    assert lab.relative_error(videos[2], videos[1]) > 1e-3


def test_every_layer_of_diffusers_video_unet_has_its_lora_name(lab: Any) -> None:
    """By diffusers' own module names, and each of them for another weight."""
    import comfy.lora

    model = lab.load("auto", lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE).model.model
    known = comfy.lora.model_lora_keys_unet(model, {})
    with torch.device("meta"):
        theirs = diffusers_unet(model.diffusion_model.config).state_dict()
    layers = [key.removesuffix(".weight") for key in theirs if key.endswith(".weight")]
    for name in (kohya, lambda layer: f"unet.{layer}"):
        landed = {known[name(layer)] for layer in layers}
        assert landed == {key for key in model.state_dict() if key.endswith(".weight")}
        assert len(landed) == len(layers)


def test_other_models_keep_the_lora_names_of_the_core(lab: Any) -> None:
    import comfy.lora
    import comfy.supported_models
    from comfy.model_base import BaseModel

    config = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1],
              "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1], "context_dim": 16,
              "transformer_depth_middle": 1, "num_head_channels": 8, "use_spatial_transformer": True,
              "use_linear_in_transformer": True}  # fmt: skip
    settings = comfy.supported_models.SD20(config)
    settings.set_inference_dtype(torch.float32, None)
    model = BaseModel(settings, device=torch.device("meta"))
    wrapped = comfy.lora.model_lora_keys_unet
    assert wrapped(model, {}) == wrapped.__wrapped__(model, {})

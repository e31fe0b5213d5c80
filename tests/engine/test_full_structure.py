"""The published bases' structure, but narrow: four levels, two blocks each, SD latents, text of width 1024, eps.

The miniature has two levels and its own latent; users' files are ModelScopeT2V and ZeroScope.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file


def narrow(lab: Any) -> Any:
    return lab.load("auto", lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE)


def test_the_narrow_base_has_the_key_names_of_the_full_one(lab: Any) -> None:
    core = lab.pack("dv2_core.model")
    full = core.UNet3D(core.UNet3DConfig.modelscope(), device="meta").state_dict()
    made = narrow(lab).model.model
    assert list(made.diffusion_model.state_dict()) == list(full)
    assert len(full) == 1480
    assert made.model_type.name == "EPS"
    assert type(made.latent_format).__name__ == "SD15"
    adapter = lab.adapter(lab.SD_ADAPTER)
    assert len(adapter.ref.model.sites) == 32


def test_stock_nodes_run_the_full_structure_with_both_halves(lab: Any) -> None:
    """KSampler from an empty latent, then video to video from the frames that came out, at a ModelScope-like aspect."""
    base, adapter = narrow(lab), lab.adapter(lab.SD_ADAPTER)
    frames, width, height = 3, 112, 64
    boxes = '{"first": [4, 30, 28, 60], "last": [70, 6, 110, 36]}'
    masks = lab.masks(frames, width, height, boxes)
    subject = lab.subject(width=width, height=height)
    model = lab.refer(base.model, adapter, base.vae, masks=masks, subject=subject)
    positive, negative = lab.move(base.positive, base.negative, adapter, masks=masks)
    settings = dict(seed=1, cfg=7.0, sampler_name="dpmpp_2m", scheduler="karras", steps=2)
    conds = dict(model=model, positive=positive, negative=negative)
    empty = lab.latent(frames, width, height)
    (latent,) = lab.call("KSampler", **conds, latent_image=empty, denoise=1.0, **settings)
    assert latent["samples"].shape == (frames, 4, 8, 14)
    (decoded,) = lab.call("VAEDecode", vae=base.vae, samples=latent)
    assert decoded.shape == (frames, height, width, 3)
    (encoded,) = lab.call("VAEEncode", vae=base.vae, pixels=decoded)
    (again,) = lab.call("KSampler", **conds, latent_image=encoded, denoise=0.5, **settings)
    assert bool(torch.isfinite(again["samples"]).all())
    plain = dict(model=base.model, positive=base.positive, negative=base.negative)
    (other,) = lab.call("KSampler", **plain, latent_image=empty, denoise=1.0, **settings)
    assert lab.relative_error(other["samples"], latent["samples"]) > 1e-2


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "module."])
def test_a_base_under_a_prefix_is_the_same_base(lab: Any, prefix: str) -> None:
    """Prefixes of merged checkpoints, which hold other models as well, and of parallel training."""
    path = lab.models / "diffusion_models" / lab.SD_BASE
    weights = {prefix + k: v for k, v in load_file(path).items()}
    if prefix == "model.diffusion_model.":
        weights["first_stage_model.decoder.conv_in.weight"] = torch.zeros(4, 4, 3, 3)
    save_file(weights, path.with_name("prefixed.safetensors"), metadata=lab.metadata(path))
    same = lab.load("auto", "prefixed.safetensors", lab.SD_TEXT, lab.SD_VAE).model.model
    base = narrow(lab).model.model
    assert same.fingerprint == base.fingerprint
    theirs = same.diffusion_model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in base.diffusion_model.state_dict().items())


def test_a_torch_file_without_metadata_is_taken_for_the_published_structure_and_eps(lab: Any) -> None:
    """As the original .pth files are; the width is that of the file."""
    base = narrow(lab).model.model
    path = lab.models / "diffusion_models" / "text2video_pytorch_model.pth"
    torch.save({"state_dict": load_file(path.with_name(lab.SD_BASE)), "step": 600000}, path)
    loaded = lab.load("auto", path.name, lab.SD_TEXT, lab.SD_VAE).model.model
    assert loaded.diffusion_model.config == base.diffusion_model.config
    assert loaded.fingerprint == base.fingerprint
    assert loaded.model_type.name == "EPS" and type(loaded.latent_format).__name__ == "SD15"
    assert lab.load("v", path.name, lab.SD_TEXT, lab.SD_VAE).model.model.model_type.name == "V_PREDICTION"
    path.unlink()


def test_an_empty_metadata_means_the_published_size(lab: Any) -> None:
    core = lab.pack("dv2_core.model")
    assert core.UNet3DConfig.from_dict({}) == core.UNet3DConfig.modelscope()


def test_a_stock_text_encoder_file_loads(lab: Any) -> None:
    """OpenCLIP ViT-H is too large for a test; CLIP-L in its own layout takes the same way through the core."""
    from transformers import CLIPTextConfig, CLIPTextModel

    shape: dict[str, Any] = dict(hidden_size=768, num_hidden_layers=2, num_attention_heads=12, intermediate_size=3072)
    weights = CLIPTextModel(CLIPTextConfig(**shape, hidden_act="quick_gelu")).half().state_dict()
    weights = {k: v.contiguous() for k, v in weights.items() if v.is_floating_point()}
    path: Path = lab.models / "text_encoders" / "clip-l.safetensors"
    save_file(weights, path)
    clip = lab.load("auto", lab.SD_BASE, path.name, lab.SD_VAE).clip
    (conditioning,) = lab.call("CLIPTextEncode", clip=clip, text="a red ball")
    assert conditioning[0][0].shape == (1, 77, 768)
    path.unlink()


def test_layers_that_have_no_weights_until_they_are_loaded_are_filled(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As newer cores make their linear layers on some machines."""
    import comfy.ops

    expected = lab.whole(lab.load(), lab.adapter())
    made: list[Any] = []

    def without_weights(self: Any, in_features: int, out_features: int, bias: bool = True, **_: Any) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.weight = self.bias = None
        made.append(self)

    def load(self: Any, state_dict: Any, prefix: str, *_: Any) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(self.out_features, self.in_features), requires_grad=False)
        for name in ("weight", "bias"):
            if prefix + name in state_dict:
                setattr(self, name, torch.nn.Parameter(state_dict[prefix + name].clone(), requires_grad=False))

    linear = comfy.ops.disable_weight_init.Linear
    monkeypatch.setattr(linear, "__init__", without_weights)
    monkeypatch.setattr(linear, "_load_from_state_dict", load)
    base, adapter = lab.load(), lab.adapter()
    assert made and all(layer.weight is not None for layer in made)
    with torch.inference_mode():
        base.model.model.float()  # the file's fp16, which this core computes in single precision
    assert lab.relative_error(lab.whole(base, adapter), expected) < 1e-5

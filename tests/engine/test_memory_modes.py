"""Memory: weights in other dtypes, in part or wholly outside the fast memory, and the core's estimate of a run."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scripts.measure_full_size import per_frame
from tests.loras import LAYERS, write_lora


@pytest.mark.parametrize(("flag", "bound"), [("fp16_unet", 1e-5), ("bf16_unet", 5e-2)])
def test_weights_stored_in_half_precision_compute_in_single_precision(lab: Any, flag: str, bound: float) -> None:
    """The file itself is fp16, so that stored as fp16 nothing is lost."""
    base, adapter = lab.load(), lab.adapter()
    expected = lab.whole(base, adapter)
    with lab.flags(**{flag: True}):
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
    with lab.flags(**{flag: True}):
        stored = lab.load()
    assert stored.model.model.manual_cast_dtype is None
    assert lab.relative_error(lab.whole(stored, lab.adapter(), steps=1), expected) < 5e-2


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_weights_stored_in_eight_bits_compute_as_their_rounded_values(lab: Any, dtype: str) -> None:
    adapter, rounded = lab.adapter(), lab.load()
    stored = SimpleNamespace(**vars(rounded))
    (stored.model, *_) = lab.call("DV2LoadBase", unet_name=lab.BASE, clip_name=lab.TEXT, vae_name=lab.VAE,
                                  prediction="auto", weight_dtype=dtype)  # fmt: skip
    eight = torch.float8_e4m3fn if dtype == "fp8_e4m3fn" else torch.float8_e5m2
    unet = stored.model.model.diffusion_model
    assert {p.dtype for p in unet.parameters()} == {eight}
    assert stored.model.model.fingerprint == rounded.model.model.fingerprint  # of the file: the adapter still belongs
    plain = lab.whole(rounded, adapter)
    with torch.inference_mode():
        for parameter in rounded.model.model.diffusion_model.parameters():
            parameter.copy_(parameter.to(eight).to(parameter.dtype))
    made = lab.whole(stored, adapter)
    assert lab.relative_error(made, lab.whole(rounded, adapter)) < 1e-5
    assert lab.relative_error(made, plain) < (0.3 if dtype == "fp8_e4m3fn" else 0.6)


#: How many bytes of each model may go to the fast memory.
ROOM: dict[str, Callable[[Any], int]] = {"one byte": lambda _: 1, "half": lambda model: model.model_size() // 2}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("room", ROOM)
def test_weights_left_in_slow_memory_give_the_same_video(
    lab: Any, room: str, lora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low VRAM: the core leaves layers where they are, and casts and patches them as they are used."""
    from comfy.model_management import LoadedModel

    layers = {layer: f"diffusion_model.{layer}" for layer in LAYERS}
    write_lora(lab, "low-vram.safetensors", "peft", layers, lab.BASE)
    settings = dict(lora_name="low-vram.safetensors", strength_model=1.0)

    def run() -> torch.Tensor:
        base = lab.load()
        if lora:
            (base.model,) = lab.call("LoraLoaderModelOnly", model=base.model, **settings)
        return lab.whole(base, lab.adapter())

    expected = run()
    load, partly = LoadedModel.model_load, set()

    def little(self: Any, lowvram_model_memory: int = 0, **kwargs: Any) -> Any:
        out = load(self, ROOM[room](self.model), **kwargs)
        if self.model.model.model_lowvram:
            partly.add(type(self.model.model).__name__)
        return out

    monkeypatch.setattr(LoadedModel, "model_load", little)
    assert lab.relative_error(run(), expected) < 1e-5
    assert {"ModelScopeT2V", "ReferenceAttentions", "MotionModule"} <= partly


def test_weights_pushed_out_between_two_runs_change_nothing(lab: Any, ready: SimpleNamespace) -> None:
    """Another model needs the memory: the core takes back a part of each of ours, or all of it."""
    import comfy.model_management

    first = lab.sample(ready.model, ready.positive, ready.negative)
    models = (ready.base.model.model, ready.adapter.ref.model, ready.adapter.motion.model)
    ours = [m for m in comfy.model_management.current_loaded_models if m.model.model in models]
    assert len(ours) == 3
    for loaded in ours:
        freed = loaded.model.partially_unload(loaded.model.offload_device, loaded.model.model_size() // 3)
        assert 0 < freed < loaded.model.model_size()
    assert lab.relative_error(lab.sample(ready.model, ready.positive, ready.negative), first) < 1e-6
    comfy.model_management.unload_all_models()
    assert torch.equal(lab.sample(ready.model, ready.positive, ready.negative), first)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_estimate_of_the_full_size_is_within_15_percent(lab: Any, adapter: bool, monkeypatch: Any) -> None:
    """Of 8 frames in fp16 on a GPU, boxes in both branches, against the bytes of the tensors alive at once there."""
    import comfy.latent_formats
    import comfy.model_management

    host = lab.pack("nodes.host.base")
    config = lab.pack("dv2_core.model").UNet3DConfig.modelscope()
    settings = host.ModelScopeConfig(config, "eps", comfy.latent_formats.SD15)
    settings.set_inference_dtype(torch.float16, None)
    model = host.ModelScopeT2V(settings, torch.device("meta"))
    masks = torch.zeros(8, 256, 448)
    loaded = SimpleNamespace(config=lab.pack("dv2_core.model").AdapterConfig(unet=config, motion_uncond="same"))
    control = lab.pack("nodes.host.motion").MotionControl(loaded, masks)
    gpu = {"unet_manual_cast": None, "cpu_mode": False, "pytorch_attention_flash_attention": True}
    for name, answer in gpu.items():
        monkeypatch.setattr(comfy.model_management, name, lambda *_, answer=answer, **__: answer)
    estimate = model.memory_required([16, 4, 32, 56])
    if adapter:
        estimate += control.inference_memory_requirements(torch.float16)
    assert 0.85 < estimate / (8 * per_frame(448, 256, adapter, gpu=True)) < 1.15

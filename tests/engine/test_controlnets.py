"""Stock ControlNets on the conditioning, beside the motion encoder."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


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


@pytest.fixture
def stock(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A ControlNet of Stable Diffusion 2.1 as the stock loader gives it, but narrow: the width of the tiny SD base."""
    import comfy.cldm.cldm
    import comfy.ops
    import comfy.supported_models

    sd21 = comfy.supported_models.SD20
    monkeypatch.setattr(sd21, "unet_config", {**sd21.unet_config, "model_channels": 32})
    monkeypatch.setattr(sd21, "unet_extra_config", {**sd21.unet_extra_config, "num_head_channels": 8})
    sizes: dict[str, Any] = dict(
        image_size=32, in_channels=4, model_channels=32, hint_channels=3, num_res_blocks=[2] * 4,
        channel_mult=(1, 2, 4, 4), transformer_depth=[1] * 6 + [0] * 2, transformer_depth_middle=1,
        num_head_channels=8, use_spatial_transformer=True, use_linear_in_transformer=True, context_dim=1024,
    )  # fmt: skip
    network = lab.randomise(comfy.cldm.cldm.ControlNet(**sizes, operations=comfy.ops.disable_weight_init), seed=9)
    folder = lab.models / "controlnet"
    folder.mkdir(exist_ok=True)
    weights = {f"control_model.{k}": v.half() for k, v in network.state_dict().items()}
    save_file(weights, folder / "sd21-narrow.safetensors")
    return lab.call("ControlNetLoader", control_net_name="sd21-narrow.safetensors")[0]


def hints(lab: Any, frames: int) -> torch.Tensor:
    """Another picture for each frame, [frames, 64, 64, 3]."""
    return torch.cat([lab.subject(30 + n) for n in range(frames)])


def apply(lab: Any, conds: Any, control: Any, image: torch.Tensor) -> Any:
    inputs = dict(positive=conds[0], negative=conds[1], control_net=control, image=image)
    return lab.call("ControlNetApplyAdvanced", **inputs, strength=0.8, start_percent=0.0, end_percent=1.0)


def test_a_controlnet_of_stable_diffusion_steers_every_frame_by_its_own_hint(lab: Any, stock: Any) -> None:
    """Beside both halves of the method; each frame's residuals are what the ControlNet gives for it alone."""
    base, adapter = lab.load("auto", lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE), lab.adapter(lab.SD_ADAPTER)
    frames = 3
    masks, images = lab.masks(frames), hints(lab, frames)
    model = lab.refer(base.model, adapter, base.vae, masks=masks)
    moved = lab.move(base.positive, base.negative, adapter, masks=masks)
    host, seen = lab.pack("nodes.host.base").HostUNet3D, []
    forward = host.forward

    def recorded(self: Any, x: Any, t: Any, context: Any, num_video_frames: int = 1, control: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        seen.append((x, t, context, list(control["output"])))
        return forward(self, x, t, context, num_video_frames, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "forward", recorded)
        lab.sample(base.model, *apply(lab, (base.positive, base.negative), stock, images), lab.latent(frames), steps=1)
    ((x, t, text, residuals),) = seen
    rows = text.repeat_interleave(frames, dim=0)
    with torch.inference_mode():
        for row in range(2 * frames):
            hint = images[row % frames : row % frames + 1].movedim(-1, 1)
            alone = stock.control_model(x=x[row : row + 1], hint=hint, timesteps=t[row : row + 1],
                                        context=rows[row : row + 1])["output"]  # fmt: skip
            for ours, expected in zip(residuals, alone, strict=True):
                assert lab.relative_error(ours[row : row + 1], 0.8 * expected) < 1e-4
    both = lab.sample(model, *apply(lab, moved, stock, images), lab.latent(frames))
    assert bool(torch.isfinite(both).all())
    assert lab.relative_error(both, lab.sample(model, *moved, lab.latent(frames))) > 1e-2


def test_each_context_window_gets_the_hints_of_its_own_frames(
    lab: Any, stock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two windows of a clip equal two runs; so does a ControlNet behind another one."""
    import comfy.sample

    base = lab.load("auto", lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE)
    length, images, noise = 3, hints(lab, 6), lab.noise(6, 4, 8, 8)
    given: list[torch.Tensor] = [noise]
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *_: given[-1])
    plain = (base.positive, base.negative)

    def conds(rows: slice) -> Any:
        return apply(lab, apply(lab, plain, stock, images[:1]), stock, images[rows])

    (windowed,) = lab.call(
        "ContextWindowsManual", model=base.model, context_length=length, context_overlap=0, context_stride=1, dim=0,
        context_schedule="standard_static", closed_loop=False, fuse_method="pyramid",
    )  # fmt: skip
    whole = lab.sample(windowed, *conds(slice(None)), lab.latent(6))
    for n in range(2):
        rows = slice(n * length, (n + 1) * length)
        given.append(noise[rows])
        assert lab.relative_error(whole[rows], lab.sample(base.model, *conds(rows), lab.latent(length))) < 1e-5
    given.append(noise)
    short = apply(lab, plain, stock, images[:4])
    with pytest.raises(ValueError, match="holds frame 5, but the ControlNet has 4 hint images"):
        lab.sample(windowed, *short, lab.latent(6))
    given.append(noise[:4])  # and the next run is none the worse for it
    assert bool(torch.isfinite(lab.sample(base.model, *short, lab.latent(4), steps=1)).all())

"""The rows of the benchmark: which two calls each of them compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion import ddim_sample
from ..model import Adapter, AdapterConfig, Reference, UNet3D, UNet3DConfig, blended_mask, reference_patches
from ..model.reference import KeyValues, subject_features
from .anchors import diffusers_twin, modelscope_twin
from .pairs import Comparison, Side, compare

GUIDANCE = 9.0


@dataclass(frozen=True)
class Size:
    """Network and video: ``frames`` of width x height pixels, ``tokens`` of text."""

    unet: UNet3DConfig
    frames: int
    width: int
    height: int
    tokens: int = 77
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)


SIZES = {
    "full": Size(UNet3DConfig.modelscope(), 16, 448, 256),
    # The same depth and wiring with a fifth of the channels; ModelScope's UNet takes no text width but 1024.
    "narrow": Size(UNet3DConfig(model_channels=64, head_dim=16), 8, 256, 128, vae_channels=(32, 64, 128, 128)),
}


@dataclass
class Bench:
    """Networks with random weights, made when a row first needs them, and inputs for a guided step (batch 2).

    Attributes:
        turns: how often the two sides of a row take turns.
        steps: DDIM steps of a whole run.
        modelscope: folder with modelscope's ``unet_sd.py``, or None.
        clock, memory: see :func:`.pairs.compare`.
    """

    size: Size
    device: torch.device
    dtype: torch.dtype
    turns: int = 5
    steps: int = 50
    modelscope: Path | None = None
    clock: str = "wall"
    memory: bool = True

    @cached_property
    def unet(self) -> UNet3D:
        return random_weights(UNet3D(self.size.unet, dtype=self.dtype, device=self.device))  # type: ignore[return-value]

    @cached_property
    def adapter(self) -> Adapter:
        config = AdapterConfig(unet=self.size.unet)
        return random_weights(Adapter(config, dtype=self.dtype, device=self.device))  # type: ignore[return-value]

    @cached_property
    def diffusers(self) -> Any:
        return diffusers_twin(self.unet)

    @cached_property
    def compiled(self) -> Any:
        return torch.compile(self.unet)

    @cached_property
    def diffusers_compiled(self) -> Any:
        return torch.compile(self.diffusers)

    @cached_property
    def reference(self) -> Reference:
        """As in ComfyUI one for all steps: what depends on the boxes alone is computed at the first."""
        return self.reference_of(1)

    @cached_property
    def reference_both(self) -> Reference:
        return self.reference_of(2)

    def reference_of(self, branches: int) -> Reference:
        assert self.adapter.ref is not None
        weight = blended_mask(self.masks, self.adapter.config.lambda_m).repeat(branches, 1, 1, 1)
        return Reference(self.adapter.ref, self.subject_pass(branches), weight)

    @cached_property
    def hint(self) -> Tensor:
        return self.encode_motion()

    # Inputs. Frames are batch; rows 0..F-1 are the unconditional branch, the others the conditional one.

    def noise(self, *shape: int) -> Tensor:
        values = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
        return values.to(self.device, self.dtype)

    @cached_property
    def latents(self) -> Tensor:
        """One video [F, C, h, w]."""
        return self.noise(self.size.frames, self.size.unet.in_channels, self.size.height // 8, self.size.width // 8)

    @cached_property
    def text(self) -> Tensor:
        return self.noise(2, self.size.tokens, self.size.unet.context_dim)

    @cached_property
    def masks(self) -> Tensor:
        """Boxes that cross the picture: [F, 1, H, W]."""
        size = self.size
        masks = torch.zeros(size.frames, 1, size.height, size.width)
        for n in range(size.frames):
            left = n * size.width // (2 * size.frames)
            masks[n, :, size.height // 4 : size.height // 4 * 3, left : left + size.width // 3] = 1
        return masks.to(self.device, self.dtype)

    def times(self, t: float) -> Tensor:
        return torch.full((2,), float(t), device=self.device)

    # Calls.

    def step(self, x: Tensor | None = None, t: float = 500, network: Any = None) -> Tensor:
        """The base on both branches: [2 F, C, h, w]."""
        x = self.latents if x is None else x
        network = self.unet if network is None else network  # a compiled module has no truth value
        return network(torch.cat([x, x]), self.times(t), self.text, self.size.frames)

    def step_diffusers(self, network: Any = None) -> Tensor:
        video = self.latents.transpose(0, 1)[None].repeat(2, 1, 1, 1, 1)  # [2, C, F, h, w]
        network = self.diffusers if network is None else network
        out = network(video, self.times(500), self.text, return_dict=False)[0]
        return out.transpose(1, 2).flatten(0, 1)

    def step_modelscope(self, network: Any) -> Tensor:
        video = self.latents.transpose(0, 1)[None].repeat(2, 1, 1, 1, 1)
        return network(video, self.times(500), self.text).transpose(1, 2).flatten(0, 1)

    def subject_pass(self, branches: int = 1) -> KeyValues:
        """Once per run: the subject with the text of the conditional branch, or of both, and its keys and values."""
        subject = self.latents[:1].repeat(branches, 1, 1, 1)
        features = subject_features(self.unet, subject, self.times(0)[-branches:], self.text[-branches:])
        assert self.adapter.ref is not None
        return self.adapter.ref.keys_values(features)

    def encode_motion(self) -> Tensor:
        """Once per run: the motion encoder."""
        assert self.adapter.motion is not None
        return self.adapter.motion.encode(self.masks, self.size.frames)

    def control(self, x: Tensor | None = None, t: float = 500, branches: int = 1) -> dict[str, list[Any]]:
        """Every step: the motion module's ControlNet on the conditional branch, or on both."""
        x = self.latents if x is None else x
        assert self.adapter.motion is not None
        repeated = [value.repeat(branches, 1, 1, 1) for value in (x, self.hint)]
        return self.adapter.motion.controlnet(*repeated, self.times(t)[-branches:], self.text[-branches:])

    def step_adapted(self, x: Tensor | None = None, t: float = 500) -> Tensor:
        """The adapter's default: the unconditional branch is the base alone, so ComfyUI runs the branches singly."""
        x = self.latents if x is None else x
        (t_u, t_c), (text_u, text_c) = self.times(t).split(1), self.text.split(1)
        options = {"patches": reference_patches(), "dv2_reference": self.reference}
        control: Any = self.control(x, t)
        return torch.cat([
            self.unet(x, t_u, text_u, self.size.frames),
            self.unet(x, t_c, text_c, self.size.frames, control, options),
        ])  # fmt: skip

    def step_adapted_both(self, x: Tensor | None = None, t: float = 500) -> Tensor:
        """Subject and boxes in both branches, ``ref_uncond`` and ``motion_uncond`` "same"."""
        x = self.latents if x is None else x
        options = {"patches": reference_patches(), "dv2_reference": self.reference_both}
        control: Any = self.control(x, t, 2)
        return self.unet(torch.cat([x, x]), self.times(t), self.text, self.size.frames, control, options)

    def run(self, step: Callable[[Tensor, float], Tensor]) -> Tensor:
        """Latents to latents, guided DDIM."""

        def predict(x: Tensor, t: int) -> Tensor:
            uncond, cond = step(x, t).chunk(2)
            return uncond + GUIDANCE * (cond - uncond)

        return ddim_sample(predict, self.latents, self.steps)

    def run_adapted(self) -> Tensor:
        for made_once in ("reference", "hint"):
            self.__dict__.pop(made_once, None)
        return self.run(self.step_adapted)

    def run_diffusers(self) -> Tensor:
        """diffusers' own pipeline from embeddings to latents, with the published scheduler."""
        from diffusers.pipelines.text_to_video_synthesis.pipeline_text_to_video_synth import TextToVideoSDPipeline
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip
        nothing: Any = None
        pipeline: Any = TextToVideoSDPipeline(nothing, nothing, nothing, self.diffusers, scheduler)  # type: ignore[arg-type]
        pipeline.set_progress_bar_config(disable=True)
        video = pipeline(
            num_frames=self.size.frames, height=self.size.height, width=self.size.width,
            num_inference_steps=self.steps, guidance_scale=GUIDANCE, latents=self.latents.transpose(0, 1)[None],
            prompt_embeds=self.text[1:], negative_prompt_embeds=self.text[:1], output_type="latent", return_dict=False,
        )[0]  # fmt: skip
        return video[0].transpose(0, 1)

    def decode(self) -> Side:
        """All frames through the decoder of a Stable Diffusion VAE, one by one: what a small memory allows."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        widths: Any = self.size.vae_channels
        down: Any = ("DownEncoderBlock2D",) * len(widths)
        up: Any = ("UpDecoderBlock2D",) * len(widths)
        vae: Any = AutoencoderKL(
            block_out_channels=widths, down_block_types=down, up_block_types=up, layers_per_block=2
        )
        random_weights(vae.to(self.device, self.dtype))
        frames = self.noise(self.size.frames, 4, *self.latents.shape[2:])
        return lambda: [vae.decode(frame[None]) for frame in frames]

    def training(self) -> Callable[[bool], Tensor]:
        """Forward and backward pass of one clip, with or without recomputing: frozen base, adapter learns, autocast."""
        from ..train.config import TrainConfig
        from ..train.dry_run import random_batch
        from ..train.model import TrainingModel

        preset, size = TrainConfig.load("modelscope-448x256"), self.size
        data = replace(preset.data, num_frames=size.frames, width=size.width, height=size.height)  # type: ignore[call-arg]
        adapter = replace(preset.adapter, unet=size.unet)
        config = replace(preset, unet=size.unet, adapter=adapter, data=data, batch=1, gradient_checkpointing=True)
        model = TrainingModel(config, None, self.device)
        model.lower_frozen()
        random_weights(model.to(self.device))
        batch = random_batch(config, None, size.tokens).to(self.device)
        blocks: list[Any] = [module for module in model.modules() if hasattr(module, "recompute")]

        def step(recompute: bool) -> Tensor:
            for block in blocks:
                block.recompute = recompute
            with torch.enable_grad():
                with torch.autocast(self.device.type, torch.bfloat16):
                    loss = model(batch)[0]
                loss.backward()
            for parameter in model.learning.values():
                parameter.grad = None
            return loss.detach()[None]

        return step

    # Rows.

    def compare(self, row: str, ours: tuple[str, Side], anchor: tuple[str, Side], made: tuple[Any, ...] = (),
                same: bool = False, memory: bool = True) -> Comparison:  # fmt: skip
        """made: what the calls use, named by the row so that it is there before memory is measured."""
        del made
        return compare(row, ours, anchor, self.device, self.turns, self.clock, same, memory and self.memory)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What every step of the base needs."""
        return self.unet, self.latents, self.text

    def row_step(self) -> Comparison:
        made = (*self.inputs, self.diffusers)
        return self.compare("step", ("base", self.step), ("diffusers", self.step_diffusers), made, same=True)

    def row_step_modelscope(self) -> Comparison:
        if self.modelscope is None:
            raise ValueError("the row step-modelscope needs --modelscope DIR, a folder with modelscope's unet_sd.py.")
        anchor = ("ModelScope", partial(self.step_modelscope, modelscope_twin(self.unet, self.modelscope)))
        return self.compare("step-modelscope", ("base", self.step), anchor, self.inputs, same=True)

    def row_step_compiled(self) -> Comparison:
        made = (*self.inputs, self.diffusers)
        ours = ("base, compiled", partial(self.step, network=self.compiled))
        anchor = ("diffusers, compiled", partial(self.step_diffusers, self.diffusers_compiled))
        on_gpu = self.device.type == "cuda"  # counting on a CPU would keep the compiler out
        return self.compare("step-compiled", ours, anchor, made, same=True, memory=on_gpu)

    def row_compiling(self) -> Comparison:
        ours = ("base, compiled", partial(self.step, network=self.compiled))
        return self.compare("compiling", ours, ("base", self.step), self.inputs, same=True, memory=False)

    def row_adapter(self) -> Comparison:
        made = (*self.inputs, self.reference, self.hint)
        return self.compare("adapter", ("base + adapter", self.step_adapted), ("base", self.step), made)

    def row_adapter_both(self) -> Comparison:
        made = (*self.inputs, self.reference_both, self.hint)
        return self.compare("adapter-both", ("base + adapter", self.step_adapted_both), ("base", self.step), made)

    def row_subject(self) -> Comparison:
        made = (*self.inputs, self.adapter)
        return self.compare("subject", ("subject pass", self.subject_pass), ("base", self.step), made)

    def row_encoder(self) -> Comparison:
        made = (*self.inputs, self.adapter, self.masks)
        return self.compare("encoder", ("motion encoder", self.encode_motion), ("base", self.step), made)

    def row_control(self) -> Comparison:
        made = (*self.inputs, self.hint)
        return self.compare("control", ("ControlNet", self.control), ("base", self.step), made)

    def row_run(self) -> Comparison:
        made = (*self.inputs, self.diffusers)
        ours = ("base", lambda: self.run(self.step))
        return self.compare("run", ours, ("diffusers' pipeline", self.run_diffusers), made, same=True)

    def row_run_adapter(self) -> Comparison:
        made = (*self.inputs, self.adapter, self.masks)
        ours = ("base + adapter", self.run_adapted)
        return self.compare("run-adapter", ours, ("base", lambda: self.run(self.step)), made)

    def row_decode(self) -> Comparison:
        return self.compare("decode", ("VAE, all frames", self.decode()), ("base", self.step), self.inputs)

    def row_training(self) -> Comparison:
        step = self.training()
        ours, anchor = ("with checkpointing", partial(step, True)), ("without", partial(step, False))
        return self.compare("training", ours, anchor, same=True)


ROWS: dict[str, Callable[[Bench], Comparison]] = {
    "step": Bench.row_step,
    "step-modelscope": Bench.row_step_modelscope,
    "step-compiled": Bench.row_step_compiled,
    "compiling": Bench.row_compiling,
    "adapter": Bench.row_adapter,
    "adapter-both": Bench.row_adapter_both,
    "subject": Bench.row_subject,
    "encoder": Bench.row_encoder,
    "control": Bench.row_control,
    "run": Bench.row_run,
    "run-adapter": Bench.row_run_adapter,
    "decode": Bench.row_decode,
    "training": Bench.row_training,
}
MEANING = {
    "step": "one guided step (batch 2) of the base, against diffusers' UNet3DConditionModel",
    "step-modelscope": "the same against ModelScope's UNetSD",
    "step-compiled": "both under torch.compile",
    "compiling": "the base under torch.compile against the base as it is",
    "adapter": "a step with reference attention and motion module in the conditional branch, against the base alone",
    "adapter-both": "the same with both of them in both branches",
    "subject": "the subject pass and its keys and values, once per run, against one step of the base",
    "encoder": "the motion encoder, once per run, against one step of the base",
    "control": "the motion module's ControlNet on one branch, every step, against one step of the base",
    "run": "a whole guided DDIM run, latents to latents, against diffusers' pipeline",
    "run-adapter": "a whole run with the adapter, everything that it does once included, against one of the base",
    "decode": "decoding all frames by a Stable Diffusion VAE, against one step of the base",
    "training": "forward and backward of one clip with gradient checkpointing, against without",
}


@torch.no_grad()
def random_weights(module: nn.Module) -> nn.Module:
    """Every parameter random, zero initialisations included, so large that activations stay near one."""
    generator = torch.Generator(next(module.parameters()).device).manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            bound = (3 / parameter[0].numel()) ** 0.5
            parameter.uniform_(-bound, bound, generator=generator)
        else:
            parameter.uniform_(-0.1, 0.1, generator=generator).add_(1.0 if name.endswith("weight") else 0.0)
    return module.eval()

"""The ModelScopeT2V UNet: one class for training and for inference inside ComfyUI."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .attention import AttentionFunction, sdpa_attention, timestep_embedding
from .blocks import ResBlock, SpatialTransformer, TemporalTransformer, Upsample
from .config import UNet3DConfig
from .encoder import Layers, run_block
from .layout import NormalisedSiLU


class UNet3D(nn.Module):
    """Video UNet with the original ModelScope parameter names (1480 keys at full size).

    Source: modelscope ``UNetSD``; diffusers ``UNet3DConditionModel``. Frames are batch: a latent is [B * F, C, h, w].

    Args:
        config: sizes.
        operations: namespace of the parameterised layers: ``torch.nn`` for training, ``comfy.ops.*`` inside ComfyUI.
        attention: see :data:`~dv2_core.model.attention.AttentionFunction`.
    """

    def __init__(self, config: UNet3DConfig, operations: Any = nn, attention: AttentionFunction = sdpa_attention,
                 dtype: torch.dtype | None = None, device: Any = None) -> None:  # fmt: skip
        super().__init__()
        self.config, self.dtype = config, dtype
        factory: dict[str, Any] = dict(dtype=dtype, device=device)
        layers = Layers(config, operations, attention, temporal=True, **factory)
        self.time_embed = layers.time_embed()
        self.input_blocks, self.middle_block, skips = layers.encoder()
        channels, last = skips[-1], len(config.channel_mult) - 1
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(last + 1)):
            for n in range(config.num_res_blocks + 1):
                block = layers.stage(channels + skips.pop(), level)
                channels = config.width(level)
                if level and n == config.num_res_blocks:
                    block.append(Upsample(channels, operations, **factory))
                self.output_blocks.append(block)
        self.out = nn.Sequential(
            operations.GroupNorm(32, channels, eps=1e-5, **factory),
            NormalisedSiLU(),
            operations.Conv2d(channels, config.out_channels, 3, padding=1, **factory),
        )

    def initialize_weights(self) -> None:
        """ModelScope's zero initialisations: every residual branch starts as the identity, the output as zero."""
        zero_(self.out[2])
        for module in self.modules():
            if isinstance(module, ResBlock):
                zero_(module.out_layers[3])
                if module.temopral_conv is not None:
                    zero_(module.temopral_conv.conv4[3])
            elif isinstance(module, (SpatialTransformer, TemporalTransformer)):
                zero_(module.proj_out)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, num_video_frames: int,
                control: dict[str, list[Tensor | None]] | None = None,
                transformer_options: dict[str, Any] | None = None) -> Tensor:  # fmt: skip
        """Predict noise (or v) for ``B`` videos of ``F = num_video_frames`` frames.

        Args:
            x: noisy latents [B * F, C, h, w], frames of one video adjacent.
            timesteps: [B] or [B * F], 0..999, may be fractional.
            context: text tokens [B, L, D] or [B * F, L, D].
            control: ControlNet residuals as ComfyUI passes them: lists ``input``, ``middle``, ``output``, consumed from
                the end; ``output`` is added to the skip, that is, to the input of the decoder's convolutions.
            transformer_options: ComfyUI's patch protocol (``patches``, ``patches_replace``, ...).

        Returns:
            [B * F, C, h, w].

        Raises:
            ValueError: the rows of x are not whole videos, or those of context or timesteps do not fit them.
        """
        rows, f = x.shape[0], num_video_frames
        if f < 1 or rows % f:
            raise ValueError(f"{rows} latent frames are not a whole number of videos of {f} frames.")
        if context.shape[0] not in (rows, rows // f):
            raise ValueError(f"{context.shape[0]} rows of text do not fit {rows // f} videos of {f} frames.")
        if timesteps.shape[0] not in (rows, rows // f):
            raise ValueError(f"{timesteps.shape[0]} timesteps do not fit {rows // f} videos of {f} frames.")
        options = transformer_options if transformer_options is not None else {}
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = 0
        patches = options.get("patches", {})

        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(x.dtype))  # [B or B*F, E]
        for patch in patches.get("emb_patch", ()):
            emb = patch(emb, self.config.model_channels, options)
        if emb.shape[0] != rows:
            emb = emb.repeat_interleave(f, dim=0)  # [B * F, E]

        def run(block: nn.Module, h: Tensor, size: tuple[int, int] | None = None, skip: Tensor | None = None) -> Tensor:
            return run_block(block, h, emb, context, f, options, size, skip)

        h, skips = x, []
        for n, block in enumerate(self.input_blocks):
            options["block"] = ("input", n)
            h = _add_control(run(block, h), control, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
        options["block"] = ("middle", 0)
        h = _add_control(run(self.middle_block, h), control, "middle")
        for n, block in enumerate(self.output_blocks):
            options["block"] = ("output", n)
            skip = _add_control(skips.pop(), control, "output")
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            h = run(block, h, tuple(skips[-1].shape[2:]) if skips else None, skip)
        return self.out(h.to(x.dtype)).contiguous()  # whatever the layout inside: samplers may view it


def _add_control(h: Tensor, control: dict[str, list[Tensor | None]] | None, name: str) -> Tensor:
    residuals = control.get(name) if control else None
    residual = residuals.pop() if residuals else None
    return h if residual is None else h + residual.to(h.dtype)


def zero_(module: nn.Module) -> nn.Module:
    """Set every parameter of a layer to zero, so that the branch it ends starts silent."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module

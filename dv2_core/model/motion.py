"""Mask-guided motion module (DreamVideo-2, section 4.2): a spatiotemporal encoder followed by a spatial ControlNet."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention, AttentionFunction, attention_override, sdpa_attention, timestep_embedding
from .config import UNet3DConfig
from .encoder import Layers, run_block
from .layout import add
from .unet3d import UNet3D, zero_


class TemporalAttention(nn.Module):
    """Pre-norm self-attention across the frames of each position, with a residual."""

    def __init__(
        self, channels: int, heads: int, attention: AttentionFunction, operations: Any, **factory: Any
    ) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(channels, **factory)
        self.attn = Attention(channels, channels, heads, channels // heads, attention, operations, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """x [B * h * w, F, C] -> the same shape."""
        return x + self.attn(self.norm(x))


class MotionEncoder(nn.Module):
    """c_m = 1 - M at pixel resolution -> hint at latent resolution.

    Repeated Conv2d + SiLU (three of stride 2: the latent is f8), two temporal attention layers, an output Conv2d.
    A hint must have the latent's size, so masks are to be given at 8 times the latent's height and width.
    """

    def __init__(self, out_channels: int, channels: tuple[int, ...], heads: int, attention: AttentionFunction,
                 operations: Any, **factory: Any) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for n, (before, after) in enumerate(zip((1, *channels[:-1]), channels, strict=True)):
            layers += [operations.Conv2d(before, after, 3, padding=1, stride=2 if n else 1, **factory), nn.SiLU()]
            layers += [operations.Conv2d(after, after, 3, padding=1, **factory), nn.SiLU()]
        self.conv = nn.Sequential(*layers)
        self.temporal = nn.ModuleList(
            TemporalAttention(channels[-1], heads, attention, operations, **factory) for _ in range(2)
        )
        self.out = operations.Conv2d(channels[-1], out_channels, 3, padding=1, **factory)

    def forward(self, motion: Tensor, num_video_frames: int) -> Tensor:
        """motion [B * F, 1, H, W] in 0..1 -> [B * F, C, ceil(H / 8), ceil(W / 8)]."""
        h = self.conv(motion)
        height = h.shape[2]
        h = rearrange(h, "(b f) c h w -> (b h w) f c", f=num_video_frames)
        for layer in self.temporal:
            h = layer(h)
        return self.out(
            rearrange(
                h, "(b h w) f c -> (b f) c h w", f=num_video_frames, h=height, b=motion.shape[0] // num_video_frames
            )
        )


class MaskConvolution(nn.Module):
    """In the place of :class:`MotionEncoder`: c_m area-averaged to the latent's resolution, then one convolution.

    The simplest reading of the paper's ablation "no motion encoder" (Table 6), which it does not describe.
    """

    def __init__(self, out_channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.out = operations.Conv2d(1, out_channels, 3, padding=1, **factory)

    def forward(self, motion: Tensor, num_video_frames: int) -> Tensor:
        """motion [B * F, 1, H, W] in 0..1 -> [B * F, C, ceil(H / 8), ceil(W / 8)]; frames do not see one another."""
        height, width = (-(-side // 8) for side in motion.shape[2:])
        return self.out(F.adaptive_avg_pool2d(motion, (height, width)))


class ControlNet(nn.Module):
    """Spatial ControlNet: the base's encoder without temporal layers, a zero convolution per skip (cldm names)."""

    def __init__(self, config: UNet3DConfig, attention: AttentionFunction, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.config = config
        layers = Layers(config, operations, attention, temporal=False, **factory)
        self.time_embed = layers.time_embed()
        self.input_blocks, self.middle_block, outputs = layers.encoder()
        self.zero_convs = nn.ModuleList(nn.ModuleList([operations.Conv2d(c, c, 1, **factory)]) for c in outputs)
        self.middle_block_out = nn.ModuleList([operations.Conv2d(outputs[-1], outputs[-1], 1, **factory)])

    def initialize_weights(self, base: UNet3D) -> None:
        """A trainable copy of the base's spatial encoder; the zero convolutions start at zero."""
        names = {name.replace(".0.op.", ".op.").replace("middle_block.2.", "middle_block.3."): name
                 for name in self.state_dict()}  # fmt: skip
        weights = {names[k]: v for k, v in base.state_dict().items() if k in names}
        self.load_state_dict(weights, strict=False)
        for module in (*self.zero_convs, self.middle_block_out):
            zero_(module)

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor,
                transformer_options: dict[str, Any] | None = None) -> dict[str, list[Tensor]]:  # fmt: skip
        """x, timesteps, context as for :class:`UNet3D`; hint [B * F, C, h, w] is added after the first convolution.

        Of the transformer options only an attention override is used: patches belong to the UNet.

        Returns ComfyUI's control dictionary: ``output`` has one residual per skip, ``middle`` one.
        Raises ValueError for a hint of other frames or another size than the latent's.
        """
        _check_hint(hint, x)
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(x.dtype))
        if emb.shape[0] != x.shape[0]:
            emb = emb.repeat_interleave(x.shape[0] // emb.shape[0], dim=0)

        def run(block: nn.Module, h: Tensor) -> Tensor:
            return run_block(block, h, emb, context, 1, attention_override(transformer_options))

        residuals: list[Tensor] = []
        h = add(run(self.input_blocks[0], x), hint.to(x.dtype))
        for n, zero_conv in enumerate(self.zero_convs):
            h = run(self.input_blocks[n], h) if n else h
            residuals.append(zero_conv[0](h))  # type: ignore[index]
        middle = self.middle_block_out[0](run(self.middle_block, h))
        return {"output": residuals, "middle": [middle]}


class T2IAdapter(nn.Module):
    """In the place of :class:`ControlNet`: a pyramid of convolutions of the hint, a zero convolution per skip.

    It does not see z_t, the timestep or the text, and has no copy of the base. Source: T2I-Adapter (arXiv 2302.08453),
    here with its features added where the paper adds the ControlNet's.
    """

    def __init__(self, config: UNet3DConfig, operations: Any, **factory: Any) -> None:
        super().__init__()
        width, last = config.model_channels, len(config.channel_mult) - 1
        skips = [(width, 0)]  # channels and level of resolution
        for level in range(last + 1):
            skips += [(config.width(level), level)] * config.num_res_blocks
            skips += [(config.width(level), level + 1)] if level < last else []
        skips.append((config.width(last), last))  # of the middle block
        self.levels = tuple(level for _, level in skips)
        self.down = nn.ModuleList(
            operations.Conv2d(width, width, 3, stride=2, padding=1, **factory) for _ in range(last)
        )
        self.zero_convs = nn.ModuleList(operations.Conv2d(width, c, 1, **factory) for c, _ in skips)

    def initialize_weights(self, base: UNet3D) -> None:
        for module in self.zero_convs:
            zero_(module)

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor,
                transformer_options: dict[str, Any] | None = None) -> dict[str, list[Tensor]]:  # fmt: skip
        """Arguments, result and errors of :meth:`ControlNet.forward`; only the hint's values are used."""
        _check_hint(hint, x)
        pyramid = [F.silu(hint.to(x.dtype))]
        for down in self.down:
            pyramid.append(F.silu(down(pyramid[-1])))
        *residuals, middle = (conv(pyramid[n]) for conv, n in zip(self.zero_convs, self.levels, strict=True))
        return {"output": residuals, "middle": [middle]}


def _check_hint(hint: Tensor, x: Tensor) -> None:
    given, expected = (hint.shape[0], *hint.shape[2:]), (x.shape[0], *x.shape[2:])
    if given != expected:
        raise ValueError(
            f"the motion hint is {given}, the latent {expected} (frames, height, width); give one box mask per "
            "frame, of 8 times the latent's height and width."
        )


class MotionModule(nn.Module):
    """Encoder and ControlNet, or what replaces them; named ``motion.encoder.*`` and ``controlnet.*`` in the file.

    Args:
        config: the base's sizes.
        encoder_channels: widths of the encoder's four resolutions (1, 1/2, 1/4, 1/8).
        encoder_heads: heads of its temporal attentions.
        encoder: "spatiotemporal" or "none" (:class:`MaskConvolution`).
        control: "controlnet" or "t2i_adapter" (:class:`T2IAdapter`).
    """

    def __init__(self, config: UNet3DConfig, encoder_channels: tuple[int, ...] = (16, 32, 96, 256),
                 encoder_heads: int = 4, encoder: str = "spatiotemporal", control: str = "controlnet",
                 operations: Any = nn, attention: AttentionFunction = sdpa_attention,
                 dtype: torch.dtype | None = None, device: Any = None) -> None:  # fmt: skip
        super().__init__()
        factory: dict[str, Any] = dict(dtype=dtype, device=device)
        width = config.model_channels
        self.encoder = (
            MaskConvolution(width, operations, **factory)
            if encoder == "none"
            else MotionEncoder(width, encoder_channels, encoder_heads, attention, operations, **factory)
        )
        self.controlnet = (
            T2IAdapter(config, operations, **factory)
            if control == "t2i_adapter"
            else ControlNet(config, attention, operations, **factory)
        )

    def initialize_weights(self, base: UNet3D) -> None:
        if isinstance(self.controlnet, ControlNet):  # a zero hint would keep every gradient from the T2I-Adapter
            zero_(self.encoder.out)
        self.controlnet.initialize_weights(base)

    def encode(self, masks: Tensor, num_video_frames: int) -> Tensor:
        """Hint of c_m = 1 - M. masks [B * F, 1, H, W], 1 inside the box. Constant over the sampling steps."""
        return self.encoder(1.0 - masks, num_video_frames)

    def forward(
        self, x: Tensor, masks: Tensor, timesteps: Tensor, context: Tensor, num_video_frames: int
    ) -> dict[str, list[Tensor]]:
        return self.controlnet(x, self.encode(masks, num_video_frames), timesteps, context)

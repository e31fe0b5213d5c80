"""Building blocks of the ModelScopeT2V UNet, with its original parameter names."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import AttentionFunction, TransformerBlock, attention_override


class TemporalConvBlock(nn.Module):
    """Four (3, 1, 1) convolutions over time with an outer residual. GroupNorm statistics run across frames."""

    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()

        def conv() -> nn.Module:
            return operations.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), **factory)

        def norm() -> nn.Module:
            return operations.GroupNorm(32, channels, eps=1e-5, **factory)

        self.conv1 = nn.Sequential(norm(), nn.SiLU(), conv())
        self.conv2 = nn.Sequential(norm(), nn.SiLU(), nn.Dropout(0.0), conv())
        self.conv3 = nn.Sequential(norm(), nn.SiLU(), nn.Dropout(0.0), conv())
        self.conv4 = nn.Sequential(norm(), nn.SiLU(), nn.Dropout(0.0), conv())

    def forward(self, x: Tensor, num_video_frames: int) -> Tensor:
        """x [B * F, C, H, W] -> the same shape."""
        h = video = rearrange(x, "(b f) c h w -> b c f h w", f=num_video_frames)
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4):
            h = stage(h)
        return rearrange(video + h, "b c f h w -> (b f) c h w")


class ResBlock(nn.Module):
    """Spatial ResBlock, then (``temporal=True``) the temporal convolutions; the misspelt name is the published one."""

    def __init__(self, channels: int, out_channels: int, emb_channels: int, operations: Any, temporal: bool = True,
                 **factory: Any) -> None:  # fmt: skip
        super().__init__()
        self.in_layers = nn.Sequential(
            operations.GroupNorm(32, channels, eps=1e-5, **factory),
            nn.SiLU(),
            operations.Conv2d(channels, out_channels, 3, padding=1, **factory),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(emb_channels, out_channels, **factory))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(32, out_channels, eps=1e-5, **factory),
            nn.SiLU(),
            nn.Dropout(0.0),
            operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else operations.Conv2d(channels, out_channels, 1, **factory)
        )
        self.temopral_conv = TemporalConvBlock(out_channels, operations, **factory) if temporal else None

    def forward(self, x: Tensor, emb: Tensor, num_video_frames: int = 1) -> Tensor:
        """x [B * F, C, H, W], emb [B * F, E] -> [B * F, C_out, H, W]."""
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        h = self.skip_connection(x) + self.out_layers(h)
        return h if self.temopral_conv is None else self.temopral_conv(h, num_video_frames)


class SpatialTransformer(nn.Module):
    """Attention within each frame: self-attention, cross-attention with the text, feed-forward."""

    def __init__(self, channels: int, context_dim: int, head_dim: int, attention: AttentionFunction, operations: Any,
                 **factory: Any) -> None:  # fmt: skip
        super().__init__()
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        block = TransformerBlock(
            channels, context_dim, channels // head_dim, head_dim, attention, operations, **factory
        )
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Linear(channels, channels, **factory)

    def forward(self, x: Tensor, context: Tensor, options: dict[str, Any]) -> Tensor:
        """x [B * F, C, H, W], context [B, L, D] -> [B * F, C, H, W]."""
        options["activations_shape"] = list(x.shape)
        options["block_index"] = 0
        h = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        h = self.proj_out(self.transformer_blocks[0](h, context, options))
        options["transformer_index"] = options.get("transformer_index", 0) + 1
        return x + rearrange(h, "n (h w) c -> n c h w", h=x.shape[2])


class TemporalTransformer(nn.Module):
    """Attention across the frames of each position: two self-attentions and a feed-forward, no positional encoding.

    Its 1x1 projections are stored as Conv1d ([C, C, 1]), as published.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, attention: AttentionFunction, operations: Any,
                 **factory: Any) -> None:  # fmt: skip
        super().__init__()
        inner = heads * head_dim
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        self.proj_in = operations.Conv1d(channels, inner, 1, **factory)
        block = TransformerBlock(inner, inner, heads, head_dim, attention, operations, **factory)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Conv1d(inner, channels, 1, **factory)

    def forward(self, x: Tensor, num_video_frames: int, options: dict[str, Any]) -> Tensor:
        """x [B * F, C, H, W] -> the same shape."""
        f, height = num_video_frames, x.shape[2]
        h = self.norm(rearrange(x, "(b f) c h w -> b c f h w", f=f))  # statistics across frames
        h = self.proj_in(h.flatten(2))  # a kernel-1 convolution does not care in which order the positions lie
        h = rearrange(h, "b c (f hw) -> (b hw) f c", f=f)
        # Spatial patches must not see these tokens; an attention override may.
        h = self.transformer_blocks[0](h, None, attention_override(options))
        h = self.proj_out(rearrange(h, "(b hw) f c -> b c (f hw)", b=x.shape[0] // f))
        return x + rearrange(h, "b c (f h w) -> (b f) c h w", f=f, h=height)


class Downsample(nn.Module):
    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Nearest-neighbour to ``size`` (the skip's: odd latent sizes do not double exactly), then a convolution."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))

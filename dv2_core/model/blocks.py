"""Building blocks of the ModelScopeT2V UNet, with its original parameter names."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionFunction, TransformerBlock, attention_override
from .layout import CHUNK_ROWS, NormalisedSiLU, add, by_video, in_chunks, pointwise_conv, temporal_conv


class TemporalConvBlock(nn.Module):
    """Four (3, 1, 1) convolutions over time with an outer residual. GroupNorm statistics run across frames."""

    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()

        def conv() -> nn.Module:
            return temporal_conv(operations)(channels, channels, (3, 1, 1), padding=(1, 0, 0), **factory)

        def norm() -> nn.Module:
            return operations.GroupNorm(32, channels, eps=1e-5, **factory)

        self.conv1 = nn.Sequential(norm(), NormalisedSiLU(), conv())
        self.conv2 = nn.Sequential(norm(), NormalisedSiLU(), nn.Dropout(0.0), conv())
        self.conv3 = nn.Sequential(norm(), NormalisedSiLU(), nn.Dropout(0.0), conv())
        self.conv4 = nn.Sequential(norm(), NormalisedSiLU(), nn.Dropout(0.0), conv())

    def forward(self, x: Tensor, num_video_frames: int) -> Tensor:
        """x [B * F, C, H, W] -> the same shape."""
        h = video = by_video(x, num_video_frames)  # [B, C, F, H, W]
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4):
            h = stage(h)
        return add(h, video).transpose(1, 2).flatten(0, 1)


class ResBlock(nn.Module):
    """Spatial ResBlock, then (``temporal=True``) the temporal convolutions; the misspelt name is the published one."""

    def __init__(self, channels: int, out_channels: int, emb_channels: int, operations: Any, temporal: bool = True,
                 **factory: Any) -> None:  # fmt: skip
        super().__init__()
        self.in_layers = nn.Sequential(
            operations.GroupNorm(32, channels, eps=1e-5, **factory),
            NormalisedSiLU(),
            operations.Conv2d(channels, out_channels, 3, padding=1, **factory),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(emb_channels, out_channels, **factory))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(32, out_channels, eps=1e-5, **factory),
            NormalisedSiLU(),
            nn.Dropout(0.0),
            operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else operations.Conv2d(channels, out_channels, 1, **factory)
        )
        self.temopral_conv = TemporalConvBlock(out_channels, operations, **factory) if temporal else None

    def forward(self, x: Tensor, emb: Tensor, num_video_frames: int = 1) -> Tensor:
        """x [B * F, C, H, W], emb [B * F, E] -> [B * F, C_out, H, W]."""
        h = add(self.in_layers(x), self.emb_layers(emb)[:, :, None, None])
        h = add(self.out_layers(h), self.skip_connection(x))
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
        h = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))  # [B * F, H * W, C]
        h = self.proj_out(self.transformer_blocks[0](h, context, options))
        options["transformer_index"] = options.get("transformer_index", 0) + 1
        return add(h.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), x)


class TemporalTransformer(nn.Module):
    """Attention across the frames of each position: two self-attentions and a feed-forward, no positional encoding.

    Its 1x1 projections are stored as Conv1d ([C, C, 1]), as published.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, attention: AttentionFunction, operations: Any,
                 **factory: Any) -> None:  # fmt: skip
        super().__init__()
        inner = heads * head_dim
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        conv = pointwise_conv(operations)
        self.proj_in = conv(channels, inner, 1, **factory)
        block = TransformerBlock(inner, inner, heads, head_dim, attention, operations, **factory)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = conv(inner, channels, 1, **factory)

    def forward(self, x: Tensor, num_video_frames: int, options: dict[str, Any]) -> Tensor:
        """x [B * F, C, H, W] -> the same shape."""
        h = self.norm(by_video(x, num_video_frames))  # statistics across frames
        h = self.proj_in(h.permute(0, 2, 3, 4, 1).flatten(2, 3))  # [B, F, H * W, inner]
        # Spatial patches must not see these tokens; an attention override may.
        block, own = self.transformer_blocks[0], attention_override(options)
        if in_chunks(h):
            for video in h:
                for part in video.split(max(1, CHUNK_ROWS // num_video_frames), dim=1):  # [F, positions, inner]
                    part.copy_(block(part.transpose(0, 1).contiguous(), None, own).transpose(0, 1))
        else:
            tokens = block(h.transpose(1, 2).flatten(0, 1), None, own)  # [B * H * W, F, inner]
            h = tokens.unflatten(0, (-1, h.shape[2])).transpose(1, 2)
        h = self.proj_out(h)
        return add(h.flatten(0, 1).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), x)


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

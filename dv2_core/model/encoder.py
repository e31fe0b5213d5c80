"""What the UNet and the ControlNet build alike: the encoder, and the way a block is run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import AttentionFunction
from .blocks import Downsample, ResBlock, SpatialTransformer, TemporalTransformer, Upsample
from .config import UNet3DConfig
from .layout import lay_out


class Layers:
    """Builds the parts of a UNet with (ModelScope names) or without temporal layers (cldm names)."""

    def __init__(self, config: UNet3DConfig, operations: Any, attention: AttentionFunction, temporal: bool,
                 **factory: Any) -> None:  # fmt: skip
        self.config, self.operations, self.temporal = config, operations, temporal
        self.factory: dict[str, Any] = factory
        self.attention = attention
        self.emb_channels = config.model_channels * 4

    def time_embed(self) -> nn.Sequential:
        linear = self.operations.Linear
        return nn.Sequential(
            linear(self.config.model_channels, self.emb_channels, **self.factory), nn.SiLU(),
            linear(self.emb_channels, self.emb_channels, **self.factory),
        )  # fmt: skip

    def res_block(self, channels: int, out_channels: int) -> ResBlock:
        return ResBlock(channels, out_channels, self.emb_channels, self.operations, self.temporal, **self.factory)

    def transformers(self, channels: int) -> list[nn.Module]:
        """The spatial transformer and, in the UNet, the temporal one that follows it."""
        config, head_dim = self.config, self.config.head_dim
        shared: dict[str, Any] = dict(attention=self.attention, operations=self.operations, **self.factory)
        layers: list[nn.Module] = [SpatialTransformer(channels, config.context_dim, head_dim, **shared)]
        if self.temporal:
            layers.append(TemporalTransformer(channels, config.heads(channels), head_dim, **shared))
        return layers

    def stage(self, channels: int, level: int) -> nn.ModuleList:
        out_channels = self.config.width(level)
        attended = self.transformers(out_channels) if level in self.config.attention_levels else []
        return nn.ModuleList([self.res_block(channels, out_channels), *attended])

    def encoder(self) -> tuple[nn.ModuleList, nn.ModuleList, list[int]]:
        """Input blocks, middle block and the channels of every skip."""
        config, width = self.config, self.config.model_channels
        first = nn.ModuleList([self.operations.Conv2d(config.in_channels, width, 3, padding=1, **self.factory)])
        if self.temporal:
            first.append(
                TemporalTransformer(width, config.init_temporal_heads, config.head_dim, self.attention, self.operations,
                                    **self.factory)
            )  # fmt: skip
        blocks, channels, skips, last = nn.ModuleList([first]), width, [width], len(config.channel_mult) - 1
        for level in range(last + 1):
            for _ in range(config.num_res_blocks):
                blocks.append(self.stage(channels, level))
                channels = config.width(level)
                skips.append(channels)
            if level < last:
                down = Downsample(channels, self.operations, **self.factory)
                blocks.append(down if self.temporal else nn.ModuleList([down]))  # "3.op" and "3.0.op"
                skips.append(channels)
        middle = [self.res_block(channels, channels), *self.transformers(channels), self.res_block(channels, channels)]
        return blocks, nn.ModuleList(middle), skips


def recompute_blocks(network: nn.Module) -> None:
    """Gradient checkpointing: keep the inputs of a UNet's or ControlNet's blocks, run these again in backward."""
    for stack in ("input_blocks", "output_blocks"):
        for block in getattr(network, stack, ()):
            block.recompute = True
    network.middle_block.recompute = True  # type: ignore[union-attr]


def run_block(block: nn.Module, h: Tensor, emb: Tensor, context: Tensor, num_video_frames: int, options: dict[str, Any],
              size: tuple[int, int] | None = None, skip: Tensor | None = None) -> Tensor:  # fmt: skip
    """Run the layers of one block; each kind takes what it needs.

    size: where an Upsample is to arrive. skip: [B * F, C', H, W], concatenated to h; only the first layer needs it.
    """
    if not (getattr(block, "recompute", False) and torch.is_grad_enabled()):
        return _run_layers(block, h, skip, emb, context, num_video_frames, options, size)
    seen = dict(options)  # the second run must see the options of the first: the UNet goes on writing into them

    def run(h: Tensor, skip: Tensor | None, emb: Tensor, context: Tensor) -> Tensor:
        own = dict(seen)
        h = _run_layers(block, h, skip, emb, context, num_video_frames, own, size)
        options.update({k: own[k] for k in ("transformer_index",) if k in own})
        return h

    # No layer draws random numbers, so no generator state has to be kept for the second run.
    return checkpoint(run, h, skip, emb, context, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]


def _run_layers(block: nn.Module, h: Tensor, skip: Tensor | None, emb: Tensor, context: Tensor, num_video_frames: int,
                options: dict[str, Any], size: tuple[int, int] | None) -> Tensor:  # fmt: skip
    # Concatenated here, where nothing holds on to it beyond the first layer.
    h = lay_out(h if skip is None else torch.cat([h, skip], dim=1))
    for layer in block if isinstance(block, nn.ModuleList) else (block,):
        if isinstance(layer, ResBlock):
            h = layer(h, emb, num_video_frames)
        elif isinstance(layer, SpatialTransformer):
            h = layer(h, context, options)
        elif isinstance(layer, TemporalTransformer):
            h = layer(h, num_video_frames, options)
        elif isinstance(layer, Upsample):
            h = layer(h, size)
        else:
            h = layer(h)
    return h

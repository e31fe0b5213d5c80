"""Shape of a ModelScopeT2V-family UNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class UNet3DConfig:
    """Sizes of a :class:`~dv2_core.model.unet3d.UNet3D`.

    The defaults are ModelScopeT2V (1,411,233,860 parameters). Source: ``configuration.json`` of the published model and
    modelscope's ``UNetSD``.

    Attributes:
        in_channels, out_channels: latent channels.
        model_channels: width of the first level; a multiple of 32 (GroupNorm has 32 groups).
        channel_mult: width factor of each level; every level but the last is followed by a /2 downsampling.
        num_res_blocks: ResBlocks per level in the encoder (the decoder has one more).
        attention_levels: indices of the levels that have spatial and temporal transformers.
        head_dim: width of one attention head; a level of width C has C / head_dim heads.
        init_temporal_heads: heads of the temporal transformer after the first convolution.
        context_dim: width of the text tokens.
    """

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    head_dim: int = 64
    init_temporal_heads: int = 8
    context_dim: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_mult", tuple(self.channel_mult))
        object.__setattr__(self, "attention_levels", tuple(self.attention_levels))
        if self.model_channels % 32:
            raise ValueError(f"model_channels is {self.model_channels}; GroupNorm needs a multiple of 32.")
        levels = range(len(self.channel_mult))
        if not set(self.attention_levels) <= set(levels):
            raise ValueError(f"attention_levels is {self.attention_levels}; the levels are {tuple(levels)}.")
        for level in {*self.attention_levels, levels[-1]}:  # the middle block has the last level's width
            if self.width(level) % self.head_dim:
                raise ValueError(
                    f"level {level} is {self.width(level)} wide, which head_dim {self.head_dim} does not divide."
                )

    @classmethod
    def modelscope(cls) -> UNet3DConfig:
        """ModelScopeT2V, ModelScopeT2V v1.5 and ZeroScope."""
        return cls()

    @classmethod
    def miniature(cls) -> UNet3DConfig:
        """The shipped miniature: 64x64 pixels, 8 frames, an f8 latent of 24 channels."""
        return cls(24, 24, 32, (2, 3), 1, (0, 1), 32, 2, 128)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UNet3DConfig:
        """Build from a JSON object; a key that is not a field is refused by name."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown UNet setting {unknown}; known are {[f.name for f in fields(cls)]}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def width(self, level: int) -> int:
        return self.model_channels * self.channel_mult[level]

    def heads(self, channels: int) -> int:
        return channels // self.head_dim

    def transformer_widths(self) -> dict[tuple[str, int], int]:
        """Width of every spatial transformer, keyed like ComfyUI's ``transformer_options["block"]``, in run order."""
        levels = range(len(self.channel_mult))
        encoder = [0]  # level of each encoder block; the first convolution has no transformer
        for level in levels:
            encoder += [level] * self.num_res_blocks + ([-1] if level < len(self.channel_mult) - 1 else [])
        widths: dict[tuple[str, int], int] = {
            ("input", n): self.width(level)
            for n, level in enumerate(encoder)
            if n and level in self.attention_levels and level >= 0
        }
        widths["middle", 0] = self.width(levels[-1])
        for n, level in enumerate(level for level in reversed(levels) for _ in range(self.num_res_blocks + 1)):
            if level in self.attention_levels:
                widths["output", n] = self.width(level)
        return widths

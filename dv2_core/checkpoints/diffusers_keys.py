"""Original parameter names (ModelScope, VGen, A1111 files) to those of diffusers' ``UNet3DConditionModel`` and back.

The two networks are the same: every parameter has one counterpart. Only the projections of the temporal transformers
differ in shape: kernel-1 convolutions [C_out, C_in, 1] in the original, linear layers [C_out, C_in] in diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from ..model.config import UNet3DConfig

_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_TEMPORAL_PROJECTIONS = ("proj_in.weight", "proj_out.weight")


def original_to_diffusers(weights: Mapping[str, Tensor], config: UNet3DConfig) -> dict[str, Tensor]:
    """Rename a state dict in the original layout; no tensor is copied.

    Raises:
        ValueError: a key belongs to no module of a UNet of these sizes.
    """
    modules = dict(_module_pairs(config))
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        name = _rename(key, modules, "original ModelScope")
        renamed[name] = value.squeeze(-1) if _is_temporal_projection(name) else value
    return renamed


def diffusers_to_original(weights: Mapping[str, Tensor], config: UNet3DConfig) -> dict[str, Tensor]:
    """Rename a state dict of diffusers' ``UNet3DConditionModel``; no tensor is copied.

    Raises:
        ValueError: a key belongs to no module of a UNet of these sizes.
    """
    modules = {theirs: ours for ours, theirs in _module_pairs(config)}
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        renamed[_rename(key, modules, "diffusers")] = value.unsqueeze(-1) if _is_temporal_projection(key) else value
    return renamed


def _is_temporal_projection(diffusers_key: str) -> bool:
    temporal = diffusers_key.startswith("transformer_in.") or ".temp_attentions." in diffusers_key
    return temporal and diffusers_key.endswith(_TEMPORAL_PROJECTIONS)


def _rename(key: str, modules: Mapping[str, str], layout: str) -> str:
    """Replace the module path at the front of ``key``. No path in ``modules`` continues another one."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        path = ".".join(parts[:length])
        if path in modules:
            return ".".join([modules[path], *parts[length:]])
    raise ValueError(
        f"{key!r} is no parameter of a video UNet of these sizes in the {layout} layout. "
        "Choose the file of a ModelScopeT2V or ZeroScope UNet, and settings that fit it."
    )


def _module_pairs(config: UNet3DConfig) -> Iterator[tuple[str, str]]:
    """(original, diffusers) path of every module whose inner parameter names are the same in both."""
    yield from {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "input_blocks.0.1": "transformer_in",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.temp_attentions.0",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }.items()
    yield from _res_block("middle_block.0", "mid_block", 0)
    yield from _res_block("middle_block.3", "mid_block", 1)
    levels, n = len(config.channel_mult), 0
    for level in range(levels):
        for i in range(config.num_res_blocks):
            n += 1
            yield from _stage(f"input_blocks.{n}", f"down_blocks.{level}", i, level in config.attention_levels)
        if level < levels - 1:
            n += 1
            yield f"input_blocks.{n}.op", f"down_blocks.{level}.downsamplers.0.conv"
    for n in range(levels * (config.num_res_blocks + 1)):
        group, i = divmod(n, config.num_res_blocks + 1)
        attention = levels - 1 - group in config.attention_levels
        yield from _stage(f"output_blocks.{n}", f"up_blocks.{group}", i, attention)
        if i == config.num_res_blocks and group < levels - 1:
            yield f"output_blocks.{n}.{3 if attention else 1}.conv", f"up_blocks.{group}.upsamplers.0.conv"


def _stage(original: str, diffusers: str, i: int, attention: bool) -> Iterator[tuple[str, str]]:
    yield from _res_block(f"{original}.0", diffusers, i)
    if attention:
        yield f"{original}.1", f"{diffusers}.attentions.{i}"
        yield f"{original}.2", f"{diffusers}.temp_attentions.{i}"


def _res_block(original: str, diffusers: str, i: int) -> Iterator[tuple[str, str]]:
    yield f"{original}.temopral_conv", f"{diffusers}.temp_convs.{i}"
    for ours, theirs in _RES_BLOCK.items():
        yield f"{original}.{ours}", f"{diffusers}.resnets.{i}.{theirs}"

"""From the original names to those of diffusers and back, tensor by tensor: neither file is ever in memory whole."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..model.adapter import fingerprint
from ..model.config import UNet3DConfig
from .base_file import PREDICTIONS, BaseFile, Layout, check_finite, file_of, open_base, read_base
from .diffusers_keys import original_to_diffusers
from .weights_file import CHECKSUM, can_be_mapped, size_text

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_GROUP = 1 << 28  # bytes of the source that are mapped at once


@dataclass(frozen=True)
class Entry:
    """One tensor of the file to write, under its name there."""

    name: str
    source: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def convert(source: Path, target: Path, to: Layout, dtype: torch.dtype | None = None, prediction: str = "") -> str:
    """Write a base file under the other names, or under the same in another precision.

    Args:
        source: any file or folder that :func:`read_base` takes.
        target: a new .safetensors file; for diffusers also a new folder, which `from_pretrained` then takes.
        dtype: float16, bfloat16 or float32; None: as in the source.
        prediction: one of ``PREDICTIONS``, noted for the loader; "": as the source says.

    Returns:
        A sentence on what was written.

    Raises:
        ValueError: the source is no base, a number does not fit the precision, or the target cannot be written.
    """
    if prediction not in ("", *PREDICTIONS):
        raise ValueError(f"The prediction {prediction!r} is not known; give one of {', '.join(PREDICTIONS)}.")
    folder = target.suffix not in (".safetensors", ".sft")
    _check_target(target, to, folder)
    path = file_of(source)
    base = read_base(path)
    entries = _plan(base, to, dtype)
    metadata = _metadata(base, path, to, prediction)
    config, groups = base.config, _groups(entries, _GROUP if can_be_mapped(path) else 1 << 62)
    name, layout = metadata["dreamvideo2.fingerprint"], base.layout
    del base  # or the whole source stays mapped
    file = target / "diffusion_pytorch_model.safetensors" if folder else target
    if folder:
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
    size = _write(file, entries, _tensors(path, config, groups), metadata)
    if folder:
        (target / "config.json").write_text(json.dumps(diffusers_config(config), indent=2) + "\n", encoding="utf-8")
    kinds = "/".join(sorted({_NAMES[entry.dtype] for entry in entries}))
    return f"{target}: {len(entries)} tensors, {layout} -> {to} names, {kinds}, {size_text(size)}, fingerprint {name}"


def diffusers_config(config: UNet3DConfig) -> dict[str, object]:
    """``config.json`` of diffusers' ``UNet3DConditionModel``. Raises ValueError for a UNet that it cannot be."""
    levels = len(config.channel_mult)
    if config.init_temporal_heads != 8 or config.attention_levels != tuple(range(levels - 1)):
        raise ValueError(
            "diffusers' UNet3DConditionModel has eight heads in its first temporal transformer and attention on every "
            "level but the last; this base has not, so it exists in the original names only."
        )
    return {
        "_class_name": "UNet3DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": config.head_dim,
        "block_out_channels": [config.width(level) for level in range(levels)],
        "cross_attention_dim": config.context_dim,
        "down_block_types": ["CrossAttnDownBlock3D"] * (levels - 1) + ["DownBlock3D"],
        "downsample_padding": 1,
        "in_channels": config.in_channels,
        "layers_per_block": config.num_res_blocks,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": config.out_channels,
        "sample_size": 32,
        "up_block_types": ["UpBlock3D"] + ["CrossAttnUpBlock3D"] * (levels - 1),
    }


def _check_target(target: Path, to: Layout, folder: bool) -> None:
    if folder and (to != "diffusers" or target.suffix in (".pth", ".pt", ".bin", ".ckpt")):
        raise ValueError(f"{target.name!r} is no name for a safetensors file; give one that ends in .safetensors.")
    if target.is_file() or (target.is_dir() and (not folder or any(target.iterdir()))):
        raise ValueError(f"{target} is already there, and nothing is overwritten. Give another name.")


def _plan(base: BaseFile, to: Layout, dtype: torch.dtype | None) -> list[Entry]:
    if to == "diffusers":
        diffusers_config(base.config)  # refuses what has no counterpart
    renamed = original_to_diffusers(base.weights, base.config) if to == "diffusers" else base.weights
    entries = [
        Entry(name, source, tuple(value.shape), dtype or value.dtype)
        for (name, value), source in zip(renamed.items(), base.weights, strict=True)
    ]
    unknown = sorted({str(entry.dtype).removeprefix("torch.") for entry in entries if entry.dtype not in _NAMES})
    if unknown:
        raise ValueError(f"{base.name} is stored as {', '.join(unknown)}; say --dtype fp16, bf16 or fp32.")
    return sorted(entries, key=lambda entry: -entry.dtype.itemsize)  # every tensor then lies at a multiple of its width


def _metadata(base: BaseFile, path: Path, to: Layout, prediction: str) -> dict[str, str]:
    known = prediction or base.prediction
    return {
        **base.metadata,
        "format": "pt" if to == "diffusers" else "dreamvideo2-base",
        "modelspec.architecture": "modelscope-t2v",
        "dreamvideo2.unet": json.dumps(base.config.to_dict()),
        **({"dreamvideo2.prediction": known} if known else {}),
        "dreamvideo2.fingerprint": fingerprint(base.weights),
        "dreamvideo2.converted_from": base.name,
        CHECKSUM: "0" * 8,
    }


def _groups(entries: list[Entry], limit: int) -> list[list[Entry]]:
    groups: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if groups[-1] and size + entry.size > limit:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.size
    return groups


def _tensors(path: Path, config: UNet3DConfig, groups: list[list[Entry]]) -> Iterator[tuple[Entry, Tensor]]:
    """The tensors in order. The file is mapped anew for every group, which gives back the memory of the one before."""
    for group in groups:
        base = open_base(path, config)
        for entry in group:
            tensor = base.weights[entry.source]
            check_finite(base.name, entry.source, tensor)
            converted = tensor.detach().to(entry.dtype).reshape(entry.shape).contiguous()
            if converted.dtype != tensor.dtype and not bool(torch.isfinite(converted).all()):
                raise ValueError(
                    f"The tensor {entry.source!r} has numbers too large for {entry.dtype}; convert to bf16 or fp32."
                )
            yield entry, converted


def _write(path: Path, entries: list[Entry], tensors: Iterator[tuple[Entry, Tensor]], metadata: dict[str, str]) -> int:
    """A safetensors file, written whole or not at all; returns its size. The library would hold all tensors at once."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}  # the same file every time
    offset = 0
    for entry in entries:
        span = [offset, offset + entry.size]
        header[entry.name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": span}
        offset += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    free, needed = shutil.disk_usage(path.parent).free, 8 + len(text) + offset
    if free < needed:
        raise ValueError(f"{path.name} needs {size_text(needed)}, and {size_text(free)} are free there.")
    temporary, checksum = path.with_suffix(".tmp"), 0
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, tensor in tensors:
                data = memoryview(tensor.view(torch.uint8).numpy())  # type: ignore[arg-type]
                checksum = zlib.crc32(data, checksum)
                file.write(data)
            place = text.index(f'"{CHECKSUM}":"'.encode()) + len(f'"{CHECKSUM}":"')
            file.seek(8 + place)
            file.write(f"{checksum:08x}".encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return needed

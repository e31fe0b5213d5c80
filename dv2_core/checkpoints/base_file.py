"""Base files of the ModelScopeT2V family, recognised by their tensors.

Published are: ModelScope's ``text2video_pytorch_model.pth``, ZeroScope's files of the same name, VGen's
(``state_dict`` wrapper, ``module.`` prefix), the ``unet/`` folders of diffusers pipelines; merged checkpoints put
``model.diffusion_model.`` in front. All hold the same 1480 tensors under one of two sets of names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..diffusion.schedule import PREDICTIONS
from ..model.config import UNet3DConfig
from ..model.unet3d import UNet3D
from .diffusers_keys import diffusers_to_original
from .other_models import looks_like
from .weights_file import check_file, mentions, open_weights

Layout = Literal["original", "diffusers"]
#: Tensors that no other network has: the first temporal convolution.
SIGNATURES: dict[Layout, str] = {
    "original": "input_blocks.1.0.temopral_conv.conv1.0.weight",
    "diffusers": "down_blocks.0.temp_convs.0.conv1.0.weight",
}
WANTED = (
    "Here belongs the UNet of ModelScopeT2V or ZeroScope: text2video_pytorch_model.pth or a diffusers unet folder "
    "(2.82 GB in fp16, 5.65 GB in fp32), or a base that this pack's trainer wrote. Choose another file, or download it "
    "again."
)
# What tells the sizes: first convolution, first temporal transformer, first cross-attention, last convolution.
_TELLING: dict[Layout, tuple[str, str, str, str]] = {
    "original": (
        "input_blocks.0.0.weight", "input_blocks.0.1.proj_in.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "out.2.weight",
    ),
    "diffusers": (
        "conv_in.weight", "transformer_in.proj_in.weight",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "conv_out.weight",
    ),
}  # fmt: skip
_IN_FOLDER = tuple(
    folder + name
    for folder in ("", "unet/")
    for name in (
        *(f"diffusion_pytorch_model{kind}" for kind in (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")),
        "text2video_pytorch_model.pth",
    )
)


@dataclass(frozen=True)
class BaseFile:
    """A base as its file has it.

    Attributes:
        name: for people: the file's name, with its folder where the name alone tells nothing.
        layout: whose names the file uses.
        config: sizes of the UNet.
        prediction: what the UNet predicts, as the file says it; "" where it does not.
        metadata: of a safetensors file.
        weights: the UNet's tensors under the original names, in the file's dtype, on disk until they are used.
    """

    name: str
    layout: Layout
    config: UNet3DConfig
    prediction: str
    metadata: dict[str, str]
    weights: dict[str, Tensor]

    def check_numbers(self) -> None:
        """Raises ValueError if a weight is not a finite number; reads all of them."""
        for key, tensor in self.weights.items():
            check_finite(self.name, key, tensor)


def read_base(path: Path, config: UNet3DConfig | None = None, mmap: bool = True) -> BaseFile:
    """Read a base file, or the one in a diffusers folder, and check it.

    Args:
        config: sizes for a file whose metadata do not say them; None: those of the published structure (four levels of
            two blocks, eight heads in the first temporal transformer), at the width that the file has.
        mmap: leave the tensors on disk until they are used.

    Raises:
        ValueError: the file is not a whole base of this family; the sentence says what it looks like.
    """
    path = file_of(path)
    check_file(path, WANTED)
    return open_base(path, config, mmap)


def open_base(path: Path, config: UNet3DConfig | None = None, mmap: bool = True) -> BaseFile:
    """As :func:`read_base`, of a file whose bytes have been checked."""
    found, metadata = open_weights(path, mmap, WANTED)
    name = name_of(path)
    if not found:
        raise ValueError(f"{name} holds no model weights. {WANTED}")
    kind = _layout(found)
    if kind is None:
        clause = looks_like({k: tuple(v.shape) for k, v in found.items()})
        raise ValueError(f"{name} is not a ModelScope text-to-video UNet: it {clause}. {WANTED}")
    layout, prefix = kind
    weights = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    given = _given_config(name, metadata) or config or _guessed_config(name, layout, weights)
    if layout == "diffusers":
        try:
            weights = diffusers_to_original(weights, given)
        except ValueError as error:
            raise ValueError(f"{name} is not a whole base: {error}") from error
    _check_shapes(name, weights, given)
    prediction = metadata.get("dreamvideo2.prediction", "")
    if prediction not in ("", *PREDICTIONS):
        raise ValueError(
            f"The metadata of {name} say that it predicts {prediction!r}; known are {', '.join(PREDICTIONS)}. The file "
            "is damaged or newer than this pack. Get it again."
        )
    return BaseFile(name, layout, given, prediction, metadata, weights)


def file_of(path: Path) -> Path:
    """The file itself, or that of a UNet in a folder as diffusers and A1111's extension lay them out.

    Raises:
        ValueError: there is none.
    """
    if not path.is_dir():
        if path.is_file():
            return path
        raise ValueError(f"There is no file {path.name!r}. {WANTED}")
    for name in _IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise ValueError(f"The folder {path.name!r} holds no UNet: none of {', '.join(_IN_FOLDER[:5])}. {WANTED}")


def name_of(path: Path) -> str:
    """Name of a base for people: half of the published files are called the same, so their folder is said as well."""
    stem = path.name.split(".")[0]
    if stem == "diffusion_pytorch_model" and path.parent.name == "unet":
        return "/".join(path.parts[-3:])
    generic = stem in ("diffusion_pytorch_model", "text2video_pytorch_model")
    return "/".join(path.parts[-2:]) if generic else path.name


def may_be_base(path: Path) -> bool:
    """Whether a file names temporal layers of this family at its beginning; see :func:`mentions`."""
    return mentions(path, b"temopral_conv", b"temp_convs")


def check_finite(name: str, key: str, tensor: Tensor) -> None:
    """Raises ValueError if a tensor holds NaN or infinity, which no trained weight is."""
    # A sum is not finite if one of its terms is not; 8-bit floats cannot be summed.
    total = (tensor if tensor.element_size() > 1 else tensor.float()).sum(dtype=torch.float32)
    if not bool(torch.isfinite(total)) and not bool(torch.isfinite(tensor.float()).all()):
        raise ValueError(
            f"{name} is damaged: its tensor {key!r} holds numbers that are not finite. Download it again, or go "
            "back to the last good state of the training that made it."
        )


def _layout(weights: Mapping[str, Any]) -> tuple[Layout, str] | None:
    """(layout, prefix) by the signature; of several such networks in one file, the one with the shortest prefix."""
    for layout, signature in SIGNATURES.items():
        prefixes = [key.removesuffix(signature) for key in weights if key.endswith(signature)]
        prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
        if prefixes:
            return layout, min(prefixes, key=len)
    return None


def _given_config(name: str, metadata: Mapping[str, str]) -> UNet3DConfig | None:
    if "dreamvideo2.unet" not in metadata:
        return None
    try:
        return UNet3DConfig.from_dict(json.loads(metadata["dreamvideo2.unet"]))
    except (ValueError, TypeError, AttributeError, RecursionError, ZeroDivisionError) as error:
        raise ValueError(f"The sizes in the metadata of {name} cannot be used: {error} Get the file again.") from error


def _guessed_config(name: str, layout: Layout, weights: Mapping[str, Tensor]) -> UNet3DConfig:
    """Sizes by a few shapes; what no shape tells (heads, levels) is as in all published files."""
    try:
        first, temporal, text, last = (weights[key].shape for key in _TELLING[layout])
        return UNet3DConfig(
            in_channels=first[1], out_channels=last[0], model_channels=first[0], context_dim=text[1],
            head_dim=temporal[0] // UNet3DConfig.init_temporal_heads,
        )  # fmt: skip
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"{name} has no metadata, and its tensors are not those of the published UNet, which has 1480 (here "
            f"{len(weights)}; {error}). {WANTED}"
        ) from error


def _expected_shapes(name: str, weights: Mapping[str, Tensor], config: UNet3DConfig) -> dict[str, tuple[int, ...]]:
    try:
        # Every block has tensors; more blocks than that are no UNet but a trap.
        if not 0 < config.num_res_blocks * len(config.channel_mult) <= len(weights):
            raise ValueError(f"{config.num_res_blocks} blocks on each of {len(config.channel_mult)} levels.")
        return {k: tuple(v.shape) for k, v in UNet3D(config, device="meta").state_dict().items()}
    except (ValueError, TypeError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"The sizes in the metadata of {name} cannot be used: {error} Get the file again.") from error


def _check_shapes(name: str, weights: Mapping[str, Tensor], config: UNet3DConfig) -> None:
    """Refuse other tensors than those of the UNet, before memory is taken for it."""
    expected = _expected_shapes(name, weights, config)
    given = {k: tuple(v.shape) for k, v in weights.items()}
    if expected != given:
        missing, extra = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
        other = next((k for k in sorted(expected.keys() & given.keys()) if expected[k] != given[k]), "")
        first = missing[0] if missing else extra[0] if extra else other
        what = "is missing" if missing else "is none of them" if extra else f"has shape {list(given[other])}"
        raise ValueError(
            f"{name} has {len(given)} tensors where this UNet has {len(expected)}: {first!r} {what}. The file is cut "
            f"short or of another model. {WANTED}"
        )
    kinds = sorted({str(v.dtype).removeprefix("torch.") for v in weights.values() if not v.is_floating_point()})
    if kinds:
        raise ValueError(f"{name} holds quantised weights ({', '.join(kinds)}), which cannot be used here. {WANTED}")

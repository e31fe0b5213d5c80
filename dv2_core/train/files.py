"""The weights that a training starts from and those that it exports for the nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..checkpoints import file_of, name_of, read_base
from ..model import UNet3DConfig, fingerprint, read_adapter, save_adapter
from .config import TrainConfig
from .model import TrainingModel

BASE, TEXT, ADAPTER = (f"dv2-mini-{part}.safetensors" for part in ("base", "text", "adapter"))  # the miniature's files
TEXT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "eos_token_id",
)  # fmt: skip


def file_name(config: TrainConfig, part: str) -> str:
    """Name of the exported file of a part ("base", "text" or "adapter")."""
    return f"{'dv2' if config.unet == UNet3DConfig.modelscope() else 'dv2-mini'}-{part}.safetensors"


def load_initial(model: TrainingModel) -> str:
    """Load what ``config.init`` names; an adapter that starts anew copies its ControlNet from the base.

    Returns the fingerprint of the base, as its file in half precision has it.
    """
    config, path = model.config, Path(model.config.init)
    if config.init != "random":
        check_initial(config)
    if config.init != "random" and _is_export(config, path):
        load_exported(model, path)
    else:
        if config.init != "random":
            _load(model.base, _read_base(path, config), path)
        if model.adapter is not None:
            model.adapter.initialize_weights(model.base)
    return fingerprint(model.base.state_dict())


def _read_base(path: Path, config: TrainConfig) -> dict[str, Tensor]:
    try:
        base = read_base(path, config.unet)
        base.check_numbers()
    except ValueError as error:
        raise ValueError(
            f"init ({path.name}) cannot be used: {error} If it is a base of another size, set [unet] to its sizes."
        ) from error
    return base.weights


def load_exported(model: TrainingModel, folder: Path) -> None:
    """Load a training's exported files; an adapter without a file starts anew."""
    base, text, adapter = (folder / file_name(model.config, part) for part in ("base", "text", "adapter"))
    _load(model.base, load_file(base), folder)
    if model.text is not None:
        _load(model.text, load_file(text), folder)
    if model.adapter is not None and adapter.exists():
        model.adapter.load_file_state_dict(read_adapter(adapter)[2])
    elif model.adapter is not None:
        model.adapter.initialize_weights(model.base)


def check_initial(config: TrainConfig) -> None:
    """Raises ValueError if ``config.init`` names nothing that a training can start from."""
    path, base = Path(config.init), file_name(config, "base")
    if config.init == "random" or path.is_file() or _is_export(config, path):
        return
    try:
        file_of(path)
    except ValueError as error:
        raise ValueError(
            f"init is {config.init!r}, which is neither a base file nor a folder with {base} or the UNet of a "
            "diffusers pipeline. Train or download the base first, and say where it lies."
        ) from error


def _is_export(config: TrainConfig, path: Path) -> bool:
    return (path / file_name(config, "base")).is_file()


def _load(module: torch.nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    own = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    differs = sorted(set(own.items()) ^ {(k, tuple(v.shape)) for k, v in weights.items()})
    if differs:
        raise ValueError(
            f"the weights of init ({source.name}) are not those of this config: {differs[0][0]!r} is the first of "
            f"{len({name for name, _ in differs})} that differ. Set [unet] and [text] to the sizes of those weights."
        )
    module.load_state_dict(weights)


def export(model: TrainingModel, folder: Path, base_fingerprint: str, words: list[str] | None,
           notes: dict[str, str]) -> None:  # fmt: skip
    """Write what the nodes load: fp16 safetensors with metadata.

    A part that stayed frozen is copied from ``init``; a base that came as one file stays where it is. Every file is
    written whole or not at all.

    Args:
        base_fingerprint: of a base that stayed frozen.
        notes: strings for the metadata of every file; see :func:`describe`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    initial = Path(config.init)
    base_name, text_name = file_name(config, "base"), file_name(config, "text")
    if "base" in config.trains or config.init == "random":
        base = half(model.base.state_dict())
        base_fingerprint = fingerprint(base)
        metadata = {
            "format": "dreamvideo2-base",
            "dreamvideo2.unet": json.dumps(config.unet.to_dict()),
            "dreamvideo2.prediction": config.adapter.prediction,
            **({"dreamvideo2.latent": "dv2-mini"} if base_name == BASE else {}),
        }
        _save(base, folder / base_name, {**metadata, **notes})
    elif _is_export(config, initial):
        _copy(initial / base_name, folder / base_name)
    else:
        base_name = name_of(file_of(initial))
    if model.text is not None and ("text" in config.trains or config.init == "random"):
        shape = model.text.config
        metadata = {
            "format": "dreamvideo2-text",
            "dreamvideo2.text": json.dumps({k: getattr(shape, k) for k in TEXT_KEYS}),
            "dreamvideo2.words": json.dumps(words),
        }
        _save(half(model.text.state_dict()), folder / text_name, {**metadata, **notes})
    elif model.text is not None:
        _copy(initial / text_name, folder / text_name)
    if model.adapter is not None:
        extra = {"base_model.name": base_name, **notes}
        save_adapter(model.adapter, folder / file_name(config, "adapter"), torch.float16, base_fingerprint, extra)


def describe(config: TrainConfig, step: int, data: str, boxes: Mapping[str, Any]) -> dict[str, str]:
    """Notes for exported files: settings (of paths only the last part), step, data and its boxes, version of the code.

    boxes: of ``box_range``, or empty; the nodes warn of boxes unlike them.
    """

    def public(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: public(v) for k, v in value.items()}
        return Path(value).name if isinstance(value, str) and ("/" in value or os.sep in value) else value

    return {
        "training.config": json.dumps(public(config.to_dict())),
        "training.step": str(step),
        "training.data": data,
        **({"training.boxes": json.dumps(boxes)} if boxes else {}),
        "training.code": code_version(),
        "license": "Apache-2.0",
    }


def code_version() -> str:
    """The commit of the pack's folder, "+" if files differ from it, or "unknown" outside a git checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--match", "v*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().to(torch.float16).contiguous() for k, v in weights.items() if v.is_floating_point()}


def _save(weights: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    temporary = path.with_suffix(".tmp")
    save_file(weights, temporary, metadata=metadata)
    os.replace(temporary, path)


def _copy(source: Path, target: Path) -> None:
    if not (target.exists() and target.samefile(source)):
        temporary = target.with_suffix(".tmp")
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)

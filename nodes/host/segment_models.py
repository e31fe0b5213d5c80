"""Detection and segmentation models: found in ComfyUI's model folders, run under its memory management.

Models are folders as `transformers` writes them, in `models/grounding-dino/NAME` and `models/sam2/NAME`, or wherever
extra_model_paths.yaml sends these names. They are read for one run and then let go: no memory is held between runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from torch import nn

from ...dv2_core.segment import (
    GROUNDING_DINO,
    SAM2,
    Detector,
    ModelKind,
    Segmenter,
    VideoSegmenter,
    how_to_get,
    is_model_folder,
)
from ...dv2_core.segment.folder import Progress

#: Room to ask for beside the weights: an estimate for one picture in Grounding DINO, or one frame in SAM 2.
WORKSPACE = 3 * 1024**3

AUTO = "auto"


def register_folders() -> None:
    for kind in (GROUNDING_DINO, SAM2):
        own = Path(folder_paths.models_dir) / kind.folder
        folder_paths.add_model_folder_path(kind.folder, str(own), is_default=True)


register_folders()  # before a node lists the models


def models(kind: ModelKind) -> dict[str, Path]:
    """The models there are, by name."""
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(kind.folder)):
        folders = sorted(root.iterdir()) if root.is_dir() else []
        for folder in folders:
            if is_model_folder(kind, folder):
                found.setdefault(folder.name, folder)
    return found


def choices(kind: ModelKind) -> list[str]:
    return [AUTO, *models(kind)]


def folder_of(kind: ModelKind, name: str) -> Path:
    """Folder of a listed model; `auto` is the first. Raises ValueError that says what to put where."""
    found = models(kind)
    if name == AUTO and found:
        return next(iter(found.values()))
    if name in found:
        return found[name]
    root = folder_paths.get_folder_paths(kind.folder)[0]
    what = f"There is no {kind.name} model" if name == AUTO else f"There is no {kind.name} model {name!r}"
    raise ValueError(f"{what} in {root}. {how_to_get(kind, root)} Then press R to refresh the list.")


def precision() -> torch.dtype:
    """Half precision where this device is faster with it."""
    device = comfy.model_management.get_torch_device()
    return torch.bfloat16 if comfy.model_management.should_use_bf16(device) else torch.float32


def detector(name: str) -> Detector:
    return Detector.load(folder_of(GROUNDING_DINO, name), precision(), on_comfys_device)


def segmenter(name: str) -> Segmenter:
    return Segmenter.load(folder_of(SAM2, name), precision(), on_comfys_device)


def video_segmenter(name: str) -> VideoSegmenter:
    return VideoSegmenter.load(folder_of(SAM2, name), precision(), on_comfys_device)


@contextmanager
def on_comfys_device(network: nn.Module) -> Iterator[None]:
    """The network on ComfyUI's device for a while; other models make room, and its own room is given back after."""
    # In a list, since ComfyUI sets attributes that a transformers module has as properties. Not the core's default
    # patcher, whose newer forms stream the weights of ComfyUI's own layers, which these networks do not have.
    patcher = comfy.model_patcher.ModelPatcher(
        nn.ModuleList([network]),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=torch.device("cpu"),
    )
    comfy.model_management.load_models_gpu([patcher], memory_required=WORKSPACE, force_full_load=True)
    try:
        yield
    finally:
        patcher.detach()


def progress() -> Progress:
    """Shows the progress on the node, and ends the computation when the run is interrupted."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return report

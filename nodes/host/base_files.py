"""Where the files of a base lie: ComfyUI's folders, with those of extra_model_paths.yaml.

Besides the usual folders these are ``text2video``, where A1111's extension keeps a folder per model with UNet, text
encoder and autoencoder in it; ``checkpoints``, for bases only; and ``diffusers``, for folders of whole pipelines.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import folder_paths

from ...dv2_core.checkpoints import may_be_base, mentions
from . import files

A1111, CHECKPOINTS, DIFFUSERS = "text2video", "checkpoints", "diffusers"
USUAL = {"unet": "diffusion_models", "text": "text_encoders", "vae": "vae"}
TEXT = (b"transformer.resblocks.", b"text_model.encoder.")
VAE = (b"first_stage_model.decoder.", b"decoder.up_blocks.", b"decoder.up.3.")


def register_folders() -> None:
    """Add ``models/text2video``, which the core does not have; a path that the user gave for it stays."""
    folder_paths.add_model_folder_path(A1111, str(Path(folder_paths.models_dir) / A1111))


def base_list() -> list[str]:
    """UNets to choose from: all of diffusion_models, then FOLDER/NAME of the bases in the other folders."""
    others = [*_found(A1111, "unet"), *_found(CHECKPOINTS, "unet")]
    return [*files.file_list(USUAL["unet"]), *others, *(f"{DIFFUSERS}/{name}" for name in _pipelines())]


def text_list() -> list[str]:
    return [*files.file_list(USUAL["text"]), *_found(A1111, "text")]


def vae_list() -> list[str]:
    return [*files.file_list(USUAL["vae"]), *_found(A1111, "vae")]


def path_of(kind: str, name: str) -> Path:
    """Path of a listed file. kind: "unet", "text" or "vae".

    Raises:
        ValueError: it is not there; the sentence says where it should be.
    """
    folder, _, rest = name.partition("/")
    usual = USUAL[kind]
    if folder_paths.get_full_path(usual, name) is None and rest:
        if folder == A1111 or (folder == CHECKPOINTS and kind == "unet"):
            return files.path_of(folder, rest)
        if folder == DIFFUSERS and kind == "unet" and rest in (pipelines := _pipelines()):
            return pipelines[rest]
    return files.path_of(usual, name)


def _found(folder: str, kind: str) -> list[str]:
    names = folder_paths.get_filename_list(folder)
    # A folder that is not the core's own lists every file, whatever its name ends in.
    named = [name for name in names if Path(name).suffix.lower() in folder_paths.supported_pt_extensions]
    paths = [(name, folder_paths.get_full_path(folder, name)) for name in named]
    return [f"{folder}/{name}" for name, path in paths if path is not None and _kind(path, _stamp(path)) == kind]


def _pipelines() -> dict[str, Path]:
    """Folders with a UNet of this family as diffusers writes it, named by the pipeline that they belong to."""
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths(DIFFUSERS):
        for folder, _, names in sorted(os.walk(root, followlinks=True)):
            path = Path(folder)
            if "config.json" in names and mentions(path / "config.json", b'"UNet3DConditionModel"'):
                named = path.parent if path.name == "unet" and path != Path(root) else path
                found.setdefault(named.relative_to(root).as_posix(), path)
    return found


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
        return status.st_mtime_ns, status.st_size
    except OSError:
        return 0, 0


@functools.lru_cache(maxsize=4096)
def _kind(path: str, stamp: tuple[int, int]) -> str:
    """What the beginning of a file names; the same file is looked at once."""
    file = Path(path)
    if may_be_base(file):
        return "unet"
    if mentions(file, *VAE):  # before the text encoder: A1111's autoencoder comes as a whole checkpoint, with both
        return "vae"
    return "text" if mentions(file, *TEXT) else ""

"""Model files: the folders ComfyUI gives, plus the pack's own ``models/`` so that templates need no download."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths

from ...dv2_core.checkpoints import read_weights

PACK = Path(__file__).resolve().parents[2]
ADAPTERS = "dreamvideo2"
EXAMPLES = "dreamvideo2"


def register_folders() -> None:
    """Add ``models/dreamvideo2`` for adapters and the pack's bundled weights to the usual folders."""
    own = Path(folder_paths.models_dir) / ADAPTERS
    folder_paths.add_model_folder_path(ADAPTERS, str(own), is_default=True)
    for key in (ADAPTERS, "diffusion_models", "text_encoders", "vae"):
        folder_paths.add_model_folder_path(key, str(PACK / "models" / key))
    # A key made by add_model_folder_path has no extensions, which lists every file.
    folder_paths.folder_names_and_paths[ADAPTERS][1].update({".safetensors", ".sft"})


def offer_examples() -> None:
    """Copy the pack's example subjects and clips into ComfyUI's input folder, where the page can show them.

    Clips lie beside the user's own files: the core's Load Video lists no folders.
    """
    folder = Path(folder_paths.get_input_directory())
    try:
        (folder / EXAMPLES).mkdir(parents=True, exist_ok=True)
        for source, target in (("subjects/*.png", folder / EXAMPLES), ("clips/*.mp4", folder)):
            for example in (PACK / "models").glob(source):
                if not (target / example.name).exists():
                    shutil.copyfile(example, target / example.name)
    except OSError as error:
        logging.warning("DreamVideo-2: its examples could not be copied to %s (%s).", folder, error)


def chosen_path(name: str) -> Path | None:
    """Path of a file that a node lists ("name", "name [output]"), or None. Only inside ComfyUI's own folders."""
    if "\0" in name or not folder_paths.exists_annotated_filepath(name):
        return None
    path = Path(folder_paths.get_annotated_filepath(name)).resolve()
    folders = (folder_paths.get_input_directory, folder_paths.get_output_directory, folder_paths.get_temp_directory)
    inside = any(path.is_relative_to(Path(folder()).resolve()) for folder in folders)
    return path if inside and path.is_file() else None


def check_prefix(prefix: str) -> None:
    """Raises ValueError unless files of that prefix lie in ComfyUI's output folder."""
    output = Path(folder_paths.get_output_directory()).resolve()
    name = prefix.replace("\\", "/").rsplit("/", 1)[-1]
    if "\0" in prefix or name in ("", ".", "..") or not (output / prefix).resolve().is_relative_to(output):
        raise ValueError(
            f"The filename prefix {prefix[:80]!r} names no file in ComfyUI's output folder; use a name such as "
            "boxes/my_path, without .. and without a leading slash."
        )


def save_text(text: str, prefix: str, suffix: str) -> tuple[str, str]:
    """Write a new file PREFIX_00001_SUFFIX with the next free number; returns (file name, subfolder of the output).

    Never overwrites: the file is opened for creation only. Raises ValueError as `check_prefix` does.
    """
    check_prefix(prefix)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    while True:
        path = Path(folder) / f"{name}_{counter:05}_{suffix}"
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
            return path.name, subfolder
        except FileExistsError:
            counter += 1


def file_list(key: str) -> list[str]:
    return folder_paths.get_filename_list(key)


def path_of(key: str, name: str) -> Path:
    """Path of a model file by its listed name, or a sentence that says where it should be."""
    path = folder_paths.get_full_path(key, name)
    if path is None:
        folders = " or ".join(folder_paths.get_folder_paths(key))
        raise ValueError(f"{name!r} is not there. Put the file into {folders} and press R to refresh the list.")
    return Path(path)


def load_weights(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of a safetensors or (weights-only) torch file, or a sentence for anything else."""
    weights, metadata = read_weights(path, mmap())
    if not weights:
        raise ValueError(f"{path.name} holds no model weights. Choose another file.")
    return weights, metadata


def mmap() -> bool:
    """Whether files may stay on disk until their tensors are used: not under ``--disable-mmap``."""
    return not getattr(comfy.utils, "DISABLE_MMAP", False)

"""Resumable checkpoints: written whole or not at all, read back with a check, the newest two kept."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

KEPT = 2


class Checkpoints:
    """The folder ``checkpoints`` of a training, with files ``step-00000500.pt``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state of a step; a kill at any moment leaves the previous file as it was."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.pt"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save({"step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(self.folder)
        for old in (*self.files()[KEPT:], *self.folder.glob("*.tmp")):
            old.unlink()
        return path

    def latest(self) -> dict[str, Any] | None:
        """The newest state that reads back, on the CPU; None without any file.

        Raises ValueError if there are files and none of them reads back.
        """
        files = self.files()
        for path in files:
            try:
                return read_checkpoint(path)
            except ValueError as error:
                print(f"{error} Going on from the one before it.", flush=True)
        if files:
            raise ValueError(
                f"none of the {len(files)} checkpoints in {self.folder} reads back. Move the folder away to start anew."
            )
        return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Raises ValueError with a sentence if the file is cut short, damaged or not a checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not compare the checksums that it writes
        if damaged is not None:
            raise ValueError(f"{damaged} has another checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"the checkpoint {path.name} does not read back ({error}).") from error


def check_fits(weights: Mapping[str, torch.Tensor], learning: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError if the checkpoint's weights are not those of the config's model."""
    missing, more = sorted(learning.keys() - weights.keys()), sorted(weights.keys() - learning.keys())
    other = [k for k in sorted(learning.keys() & weights.keys()) if learning[k].shape != weights[k].shape]
    if missing or more or other:
        example = (
            f"{other[0]} is {list(weights[other[0]].shape)} there and {list(learning[other[0]].shape)} here"
            if other
            else f"{(missing or more)[0]} learns only {'here' if missing else 'there'}"
        )
        raise ValueError(
            f"the checkpoint belongs to a training of another config: {example}. Use another --out, or the config that "
            "the checkpoint was made with."
        )


def sync_folder(folder: Path) -> None:
    """Bring a renamed file's new name onto the disk; Windows has no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

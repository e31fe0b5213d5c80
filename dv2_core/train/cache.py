"""Computed tensors on disk, under names that are hashes of everything they were computed from."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

#: Bytes read at once while hashing.
CHUNK = 1 << 22


class Cache:
    """Entries of named tensors, one safetensors file each. Safe to share between processes and trainings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """The entry of a key; None if there is none or the file is damaged (its digest does not match)."""
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                if (file.metadata() or {}).get("digest") == _digest(tensors):
                    return tensors
        except (OSError, SafetensorError):
            pass
        return None

    def put(self, key: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write an entry whole or not at all; the key's own text is kept in the file's metadata, for people."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            save_file(contiguous, temporary, metadata={"digest": _digest(contiguous), "key": _text(key)})
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _path(self, key: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(_text(key).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"


class Digests:
    """SHA-256 of files, remembered by path, size and time of change, so that a large data set is read once.

    The memory is a text file in the cache folder; it may be deleted, and is written to by several processes.
    """

    def __init__(self, folder: Path) -> None:
        self.memory = folder / "digests.jsonl"
        self.known: dict[tuple[Any, ...], str] = {}
        self.read = 0  # bytes of the memory that are known

    def of(self, path: Path, start: int = 0, length: int | None = None) -> str:
        """The digest of a file, or of ``length`` bytes of it from ``start`` on. Raises OSError if it is not there."""
        status = path.stat()
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns, start, length)
        if key not in self.known:
            self._catch_up()
        if key not in self.known:
            self.known[key] = file_digest(path, start, length)
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            with self.memory.open("ab", buffering=0) as file:  # one write of one line: processes do not mix theirs
                file.write(json.dumps([*key, self.known[key]]).encode() + b"\n")
        return self.known[key]

    def _catch_up(self) -> None:
        """Read what other processes have written since."""
        if not self.memory.is_file():
            return
        with self.memory.open("rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.read += len(line)
                try:
                    *key, digest = json.loads(line)
                except ValueError:
                    continue  # a damaged line is a file to be hashed again
                self.known[tuple(key)] = digest


def file_digest(path: Path, start: int = 0, length: int | None = None) -> str:
    """SHA-256 of ``length`` bytes (None: the rest) of a file from ``start`` on, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        left = length if length is not None else path.stat().st_size - start
        while left > 0 and (part := file.read(min(CHUNK, left))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, ensure_ascii=False)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()

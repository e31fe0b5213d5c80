"""Tensor files of any origin: safetensors and torch files, told apart by their content and never by their name.

What a file holds is read, never run. A file that cannot be read gets a sentence that says what it looks like. Damage is
found before a tensor is handed out: by the checksums in a torch file, by the sizes in a safetensors header, and by the
checksum that this package's converter adds to that header.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

CHECKSUM = "dreamvideo2.crc32"  #: metadata key: CRC-32 of all bytes after the header, 8 hexadecimal digits
OTHER_FILE = "Download it again or choose another file."
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors library
_CHUNK = 1 << 22
_ZIP = b"PK\x03\x04"
_BEGINNINGS = {
    b"version https://git-lfs": "it is the text pointer that stands for a file in Git LFS, not the file.",
    b"<!DOCTYPE": "it is a web page, not the file that the page is about.",
    b"<!doctype": "it is a web page, not the file that the page is about.",
    b"<html": "it is a web page, not the file that the page is about.",
    b"GGUF": "it is a GGUF file, and quantised weights cannot be used here.",
}


def read_weights(path: Path, mmap: bool = True, advice: str = OTHER_FILE) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors or torch file.

    Args:
        mmap: leave the tensors on disk until they are used; their pages are shared and can be dropped by the system.
        advice: end of the sentence: what to do.

    Returns:
        (tensors by name, metadata; a torch file has none). A torch file's ``state_dict`` is unwrapped, and what is no
        tensor is left out.

    Raises:
        ValueError: with a sentence that says what the file looks like.
    """
    check_file(path, advice)
    return open_weights(path, mmap, advice)


def check_file(path: Path, advice: str = OTHER_FILE) -> None:
    """Raises ValueError unless the file is whole: reads it once, in pieces."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
        if not head:
            raise ValueError("it is empty.")
        for beginning, clause in _BEGINNINGS.items():
            if head.startswith(beginning):
                raise ValueError(clause)
        if head.startswith(_ZIP):
            _check_torch_archive(path, size)
        elif _is_safetensors(head):
            _check_safetensors(path, size)
        elif head[0] != 0x80:  # how a pickle starts, and with it a torch file of before 2020
            raise ValueError("it begins like neither a safetensors nor a torch file.")
    except (ValueError, OSError) as error:
        raise _unreadable(path, error, advice) from error


def open_weights(path: Path, mmap: bool = True, advice: str = OTHER_FILE) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As :func:`read_weights`, of a file that has been checked."""
    try:
        with path.open("rb") as file:
            safetensors = _is_safetensors(file.read(9))
        if safetensors:
            with safe_open(path, framework="pt") as opened:
                # The library maps the file in any case; a copy leaves the mapping behind.
                weights = {k: opened.get_tensor(k) if mmap else opened.get_tensor(k).clone() for k in opened.keys()}
                return weights, opened.metadata() or {}
        return _open_torch(path, mmap), {}
    except Exception as error:  # both libraries raise anything on hostile bytes; the cause is kept in the sentence
        raise _unreadable(path, error, advice) from error


def can_be_mapped(path: Path) -> bool:
    """False for torch files of the kind written before 2020, and for any that is called .safetensors.

    The tensors of the former have no place of their own in the file; torch hands the latter to the other library.
    """
    with path.open("rb") as file:
        head = file.read(9)
    return _is_safetensors(head) or (head.startswith(_ZIP) and path.suffix != ".safetensors")


def mentions(path: Path, *parts: bytes) -> bool:
    """Whether one of ``parts`` is in a file's first two megabytes, where every container names its tensors.

    Nothing is parsed: this sorts the files of a folder, and says nothing on whether one can be used.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(1 << 21)
    except OSError:
        return False
    return any(part in beginning for part in parts)


def size_text(size: int) -> str:
    """A file size as download pages give it: decimal units."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size:,} bytes"


def _is_safetensors(head: bytes) -> bool:
    return len(head) >= 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= _HEADER_LIMIT


def _check_safetensors(path: Path, size: int) -> None:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if 8 + length > size:
            raise ValueError(f"it is cut short: it ends within its header, after {size_text(size)}.")
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", {})
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            expected, checksum = 8 + length + int(end), metadata.get(CHECKSUM)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is damaged: its header cannot be read ({error}).") from error
        if size < expected:
            raise ValueError(f"it is cut short: it has {size_text(size)} of {size_text(expected)}.")
        if checksum is not None:
            found = 0
            while chunk := file.read(_CHUNK):
                found = zlib.crc32(chunk, found)
            if f"{found:08x}" != checksum:
                raise ValueError("it is damaged: its data do not have the checksum that its header gives.")


def _check_torch_archive(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if not any(record.filename.endswith("/data.pkl") for record in records):
                raise ValueError("it is a ZIP archive of something else; unpack it first.")
            # torch never compresses; unpacking could fill the memory.
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise ValueError("it is a compressed archive, which torch never writes.")
            # torch itself ignores the checksums on reading, and can be told to write none, which leaves zeros.
            if any(record.CRC for record in records) and (damaged := archive.testzip()):
                raise ValueError(f"it is damaged: its part {damaged!r} does not have the checksum that it should have.")
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"it begins like a torch file, but its table of contents cannot be read ({error}); it is damaged, or cut "
            f"short at {size_text(size)}."
        ) from error
    except (RuntimeError, NotImplementedError, struct.error, UnicodeDecodeError, EOFError) as error:
        raise ValueError(f"it is damaged ({error}).") from error


def _open_torch(path: Path, mmap: bool) -> dict[str, Tensor]:
    if mmap and can_be_mapped(path):
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    else:
        with path.open("rb") as file:  # not its name, by which torch would judge it
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    elif isinstance(loaded, dict) and len(loaded) == 1 and isinstance(next(iter(loaded.values())), dict):
        loaded = next(iter(loaded.values()))
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds {type(loaded).__name__!r} and no weights by name.")
    weights = {k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, Tensor)}
    for name, tensor in weights.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized
        if not plain or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ValueError(f"its tensor {name!r} claims more numbers than the file holds.")
    return weights


def _unreadable(path: Path, error: Exception, advice: str) -> ValueError:
    return ValueError(f"{path.name} cannot be read as model weights: {_reason(error)} {advice}")


def _reason(error: Exception) -> str:
    text = str(error).strip()
    code: Any = re.search(r"GLOBAL:? (\S+)", text) or re.search(r"class (\S+) ", text)
    if "weights_only" in text or "Weights only" in text:
        if code is None:
            return "it is damaged, or holds Python objects, which are never loaded."
        return f"it holds Python objects or code ({code.group(1).rstrip('.')}), which are never loaded or run."
    if isinstance(error, ValueError) and text.endswith("."):
        return text
    first = text.splitlines()[0][:200].rstrip(".") if text else type(error).__name__
    return f"it is damaged or no model ({first})."

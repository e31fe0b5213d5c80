"""Where real clips come from: a manifest beside its videos, or WebDataset shards that hold both.

Either way the rows are found once and read again by their place in the file, so that any clip is reached in any order
and a resumed training needs no position in a stream.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from glob import glob
from pathlib import Path

import numpy as np
from PIL import Image

from .. import rle
from ..manifest import ClipRow, below, parse_row, read_rows
from .cache import Digests

VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi")

#: Called with every row that is not rejected and where it stands; raises ValueError for a row that cannot be used.
Check = Callable[[ClipRow, str], None]


class ClipSource:
    """Rows and videos of a data set, by number 0 .. len - 1.

    Attributes:
        ids, videos: 64-bit hashes of each row's id and of its video's name. rejected: rows with a reason.
    """

    def __init__(self, name: str, root: Path | None) -> None:
        self.name, self.root, self.rejected = name, root, 0
        self._files: list[Path] = []
        self._wheres: list[str] = []
        self._places: list[tuple[int, int, int, int, int]] = []  # file, row start and length, video start and length
        self.ids = self.videos = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return len(self._places)

    @classmethod
    def of_manifest(cls, path: Path, root: Path | None, check: Check) -> ClipSource:
        """Read a manifest whose paths lie below ``root`` (None: its own folder). ValueError for the first bad row."""
        source = cls(path.name, path.parent if root is None else root)
        source._files.append(path)
        hashes = []
        for offset, length, where, row in read_rows(path):
            if row is None:
                source.rejected += 1
                continue
            check(row, where)
            source._wheres.append(where)
            source._places.append((0, offset, length, 0, 0))
            hashes.append((_hash(row.id), _hash(row.video)))
        return source._finished(hashes)

    @classmethod
    def of_shards(cls, pattern: str, check: Check) -> ClipSource:
        """Read the index of every shard: tar files of pairs ``key.json`` (a row) and ``key.mp4`` (its video).

        Raises ValueError for no shard, a shard that is compressed or damaged, a row without video and a bad row.
        """
        source = cls(pattern, None)
        hashes = []
        for path in shard_paths(pattern):
            rows, videos = _index(path)
            source._files.append(path)
            with path.open("rb") as file:
                for key, (start, length) in rows.items():
                    where = f"{path.name}:{key}.json"
                    file.seek(start)
                    row = parse_row(file.read(length), where)
                    if row is None:
                        source.rejected += 1
                        continue
                    if key not in videos:
                        raise ValueError(f"{where}: the shard has no video {key}.mp4; write both into the same shard.")
                    if row.mask_path is not None:
                        raise ValueError(
                            f"{where}: a shard holds no mask folders; write mask_rle instead of mask_path."
                        )
                    check(row, where)
                    source._wheres.append(where)
                    source._places.append((len(source._files) - 1, start, length, *videos[key]))
                    hashes.append((_hash(row.id), _hash(row.video)))
        return source._finished(hashes)

    def _finished(self, hashes: list[tuple[int, int]]) -> ClipSource:
        if not hashes:
            raise ValueError(f"{self.name} holds no clip to use ({self.rejected} are rejected); add rows.")
        self.ids, self.videos = np.array(hashes, np.uint64).T
        return self

    def row(self, index: int) -> tuple[ClipRow, str]:
        """Row ``index`` and where it stands, for error sentences."""
        number, start, length, *_ = self._places[index]
        where = self._wheres[index]
        with self._files[number].open("rb") as file:
            file.seek(start)
            row = parse_row(file.read(length), where)
        if row is None:
            raise ValueError(f"{where}: the row has changed since the training began; start it again.")
        return row, where

    def video(self, index: int) -> Path | io.BytesIO:
        """The video of row ``index``, as a file or as its bytes."""
        number, _, _, start, length = self._places[index]
        if self.root is not None:
            row, where = self.row(index)
            return below(self.root, row.video, where)
        with self._files[number].open("rb") as file:
            file.seek(start)
            return io.BytesIO(file.read(length))

    def video_digest(self, index: int, digests: Digests) -> str:
        number, _, _, start, length = self._places[index]
        video = self.video(index) if self.root is not None else None
        return digests.of(video) if isinstance(video, Path) else digests.of(self._files[number], start, length)

    def mask(self, row: ClipRow, where: str, number: int) -> np.ndarray | None:
        """The subject's mask [height, width] (bool) in the video's frame ``number``; None where there is none."""
        if row.mask_rle is not None:
            runs = row.mask_rle[number - row.frames[0]]
            try:
                return None if runs is None else rle.decode(runs)
            except ValueError as error:
                raise ValueError(f"{where}: mask_rle[{number - row.frames[0]}]: {error}") from error
        file = self._mask_file(row, where, number)
        return None if file is None else read_mask(file, (row.width, row.height), row.obj_id, where)

    def masks_digest(self, row: ClipRow, where: str, digests: Digests) -> str:
        """Digest of all masks of the row."""
        if row.mask_rle is not None:
            return hashlib.sha256(json.dumps(row.mask_rle).encode()).hexdigest()
        files = {number: self._mask_file(row, where, number) for number in range(*row.frames)}
        parts = {number: digests.of(file) for number, file in files.items() if file is not None}
        return hashlib.sha256(json.dumps([row.obj_id, parts]).encode()).hexdigest()

    def _mask_file(self, row: ClipRow, where: str, number: int) -> Path | None:
        if row.mask_path is None or self.root is None:
            return None
        file = below(self.root, row.mask_path, where) / f"{number:05d}.png"
        return file if file.is_file() else None


def shard_paths(pattern: str) -> list[Path]:
    """Files of a pattern with {000..099} ranges or glob's wildcards, sorted. ValueError if there are none."""
    paths = []
    for name in _expand(pattern):
        found = sorted(glob(name))
        if not found:
            raise ValueError(f"data.shards: there is no file {name}; give .tar files on this machine (no addresses).")
        paths += map(Path, found)
    return paths


def _expand(pattern: str) -> list[str]:
    """clips-{000..002}.tar -> clips-000.tar, clips-001.tar, clips-002.tar; numbers keep their leading zeros."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        return [pattern]
    numbers = range(int(match[1]), int(match[2]) + 1)
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [name for n in numbers for name in _expand(f"{head}{n:0{len(match[1])}d}{tail}")]


def _index(shard: Path) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """(start, length) of every row and of every video in a shard, by key; the key ends at the name's first dot."""
    rows: dict[str, tuple[int, int]] = {}
    videos: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, dot, suffix = name.partition(".")
                kind = rows if suffix == "json" else videos if f".{suffix}" in VIDEOS else None
                if kind is not None and member.isreg() and not member.issparse():
                    kind[f"{folder}/{stem}" if folder else stem] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{shard.name} is no uncompressed tar file ({error}); write or copy the shard again."
        ) from error
    return rows, videos


def read_mask(file: Path, size: tuple[int, int], obj_id: str, where: str) -> np.ndarray:
    """A mask [height, width] (bool): pixels from 128 of a grey picture; of a palette picture those of colour obj_id.

    An obj_id of 0, which is the background of such pictures, takes every colour but that. size: (width, height).
    Raises ValueError for another size and for what is no picture.
    """
    try:
        with Image.open(file) as picture:
            if picture.size != size:
                found = f"{picture.width}x{picture.height}"
                raise ValueError(f"{where}: the mask {file.name} is {found}, the video {size[0]}x{size[1]}.")
            if picture.mode == "P" and obj_id.isdecimal():
                wanted, colours = int(obj_id), np.asarray(picture)
                return colours == wanted if wanted else colours != 0
            return np.asarray(picture.convert("L")) >= 128
    except OSError as error:
        raise ValueError(f"{where}: the mask {file.name} is no picture ({error}); write it again.") from error


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

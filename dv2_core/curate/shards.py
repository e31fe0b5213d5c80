"""Accepted clips as WebDataset shards: uncompressed tar files of pairs KEY.json, a manifest's row, and KEY.mp4."""

from __future__ import annotations

import io
import tarfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .clip import Clip
from .tools import Tools


class ShardWriter:
    """Writes ``shards/clips-00000.tar``, ...; nothing where ``config.shards`` is 0. Use it as a context.

    The bytes depend on the clips alone. A shard takes its place when it is full, so readers never see a part of one.
    """

    def __init__(self, tools: Tools) -> None:
        self.tools, self.folder, self.number, self.inside = tools, tools.out / "shards", 0, 0
        self._file: AbstractContextManager[Any] | None = None
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._finish()
            for shard in self.folder.glob("clips-*.tar"):  # of a run that accepted more
                if not shard.stem[6:].isdigit() or int(shard.stem[6:]) >= self.number:
                    shard.unlink()
        elif self._file is not None:
            self._file.__exit__(*error)

    def add(self, clip: Clip, line: str) -> None:
        """Add a clip and its line of the manifest."""
        if not self.tools.config.shards:
            return
        if self._tar is None:
            self._file = self.tools.writing(self.folder / f"clips-{self.number:05d}.tar")
            self._tar = tarfile.open(fileobj=self._file.__enter__(), mode="w", format=tarfile.PAX_FORMAT)
        key = f"{self.number:05d}-{self.inside:05d}"
        self._put(f"{key}.json", line.encode())
        video = self.tools.video(clip)
        self._put(f"{key}{Path(clip.name).suffix}", video.read_bytes() if isinstance(video, Path) else video.read())
        self.inside += 1
        if self.inside == self.tools.config.shards:
            self._finish()

    def _put(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def _finish(self) -> None:
        if self._tar is None or self._file is None:
            return
        self._tar.close()
        self._file.__exit__(None, None, None)
        self._file = self._tar = None
        self.number, self.inside = self.number + 1, 0

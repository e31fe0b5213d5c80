"""WebDataset shards: KEY.mp4 with KEY.txt or KEY.json beside it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...train.data_sources import shard_paths
from ..clip import Clip
from ..config import CurateConfig
from .common import MAX_TEXT, VIDEOS, named
from .lists import from_row


def read_shards(source: Path, config: CurateConfig) -> Iterator[Clip]:
    """Uncompressed tar files; ``source`` may have wildcards or {000..099}. KEY.txt is the caption; KEY.json is a row of
    a list or of a manifest, whose video is the shard's own."""
    for shard in shard_paths(str(source)):
        yield from _read_shard(shard)


def _read_shard(shard: Path) -> Iterator[Clip]:
    videos: dict[str, tuple[str, tuple[int, int]]] = {}
    texts: dict[str, dict[str, str]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not member.isreg() or member.issparse():
                    continue
                if f".{suffix}" in VIDEOS:
                    videos[key] = (suffix, (member.offset_data, member.size))
                elif suffix in ("txt", "json"):
                    file = tar.extractfile(member)
                    text = file.read(MAX_TEXT if suffix == "txt" else -1) if file else b""
                    texts.setdefault(key, {})[suffix] = text.decode("utf-8", "replace")
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{shard.name} is no uncompressed tar file ({error}); write or copy the shard again."
        ) from error
    for key, (suffix, place) in videos.items():
        path = f"{key.replace('..', '_').lstrip('/')}.{suffix}"
        clip = Clip(name=named(f"{shard.stem}/{path}"), source=str(shard), member=place)
        beside = texts.get(key, {})
        if "json" in beside:
            row = from_row(_with_video(beside["json"], path), f"{shard.name}:{key}.json", shard.parent)
            if row is None:
                continue
            clip = replace(row, name=clip.name, source=clip.source, member=place)
        if "txt" in beside and not clip.caption:
            clip = replace(clip, caption=" ".join(beside["txt"].split()))
        yield clip


def _with_video(text: str, path: str) -> str:
    """The row with the shard's own video, whatever it says of one."""
    try:
        values = json.loads(text)
    except ValueError:
        return text  # from_row's sentence names the place
    return json.dumps({**values, "video": path}) if isinstance(values, dict) else text

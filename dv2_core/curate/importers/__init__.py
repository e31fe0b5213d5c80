"""What there is to curate: folders, lists and shards of videos, as clips with whatever their source says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ..clip import Clip
from ..config import CurateConfig
from .folders import read_davis, read_folder, read_omni
from .lists import read_csv, read_jsonl, read_videobooth
from .shards import read_shards

Importer = Callable[[Path, CurateConfig], Iterator[Clip]]

IMPORTERS: dict[str, Importer] = {
    "folder": read_folder,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "shards": read_shards,
    "davis": read_davis,
    "omni": read_omni,
    "videobooth": read_videobooth,
}


def read_source(config: CurateConfig) -> Iterator[Clip]:
    """The clips of ``config.source``, in an order that is the same every time.

    Raises ValueError for a source that is not there, of an unknown kind, or damaged.
    """
    source = Path(config.source)
    kind = config.kind if config.kind != "auto" else kind_of(source)
    return IMPORTERS[kind](source, config)


def kind_of(source: Path) -> str:
    """The kind of a source, by its name and by what lies in it. ValueError where neither tells."""
    suffix = source.suffix.lower()
    if suffix == ".tar":
        return "shards"
    if source.is_file() and suffix in (".jsonl", ".json"):
        return "jsonl"
    if source.is_file() and suffix == ".csv":
        return "videobooth" if source.with_suffix("").is_dir() else "csv"
    if source.is_dir():
        if any((folder / "JPEGImages").is_dir() for folder in (source, *source.iterdir())):
            return "davis"
        if (source / "metadata.json").is_file() or any(source.glob("*/metadata.json")):
            return "omni"
        if any(file.with_suffix("").is_dir() for file in source.glob("*.csv")):
            return "videobooth"
        return "folder"
    raise ValueError(
        f"There is no {source}; give a folder of videos, a list (.jsonl, .csv) or shards (.tar), or say its kind: one "
        f"of {', '.join(IMPORTERS)}."
    )

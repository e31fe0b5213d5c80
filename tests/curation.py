"""What the curation's tests share: folders of small clips, and a curation of them in this process."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dv2_core.curate.config import CurateConfig
from dv2_core.curate.run import Counts, curate
from dv2_core.drawn import subject_names
from dv2_core.manifest import ClipRow, parse_row
from tests.drawn_clips import draw_frames, write_video

NAMES = subject_names()[:5]

#: Clips of the tests have ten frames, 16 a second.
SHORT = {"min_seconds": 0.5, "max_seconds": 1.0}


def write_folder(folder: Path, names: list[str] = NAMES, masks: bool = True, still: str = "") -> Path:
    """Videos of drawn subjects that move right, with captions, and with their masks if asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        frames, shapes = draw_frames(name, step=0 if name == still else 3)
        write_video(folder / f"{name}.mp4", frames)
        (folder / f"{name}.txt").write_text(f"a {name} moving right")
        if masks:
            write_masks(folder / f"{name}.masks", shapes)
    return folder


def write_masks(folder: Path, masks: np.ndarray) -> None:
    folder.mkdir()
    for t, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{t:05d}.png")


def settings(source: Path, **values: Any) -> CurateConfig:
    """A config; tables are given as dictionaries."""
    return CurateConfig.from_dict({"source": str(source), "split": SHORT, "audit": 0, **values})


def rows_of(out: Path) -> list[ClipRow]:
    """The accepted rows of a curation's manifest."""
    lines = (out / "clips.jsonl").read_text().splitlines()
    return [row for n, line in enumerate(lines) if (row := parse_row(line, f"clips.jsonl:{n}")) is not None]


def reasons_of(out: Path) -> dict[str, str]:
    """{video's file name: reason} of the rejected clips."""
    import json

    rows = map(json.loads, (out / "clips.jsonl").read_text().splitlines())
    return {Path(row["video"]).name: row["reject"] for row in rows if row.get("reject")}


def contents(out: Path) -> dict[str, str]:
    """Digest of every file but the state, which has no order."""
    files = (file for file in sorted(out.rglob("*")) if file.is_file() and "state" not in file.parts)
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def run(source: Path, out: Path, verdicts: Any = None, **values: Any) -> Counts:
    return curate(settings(source, **values), out, verdicts)[0]

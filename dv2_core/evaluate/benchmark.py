"""The definition of a benchmark: subjects x box sequences x prompts in a TOML file, and the videos that it asks for.

Every video is a `Case`, so it is generated as the mini-world's pairs are. docs/evaluation.md describes the file.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image, ImageOps

from ..boxes import BoxPlan
from ..boxes.formats import read_any, write
from ..boxes.track import show
from ..drawn import drawn_subjects
from ..subject import extract_subject, place_on_canvas
from .adherence import array_of, to_bytes
from .metrics import Array, Misses
from .prompts import SUBJECT_FILE, Setup
from .subjects import DRAWN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

SHIPPED = Path(__file__).parent / "benchmarks"
PICTURES = (".png", ".webp", ".jpg", ".jpeg")
BOXES = (".json", ".csv")
MODEL = ("unet", "clip", "vae", "adapter")  # the fields of Setup that a benchmark may name


@dataclass(frozen=True)
class Metrics:
    """The networks that measure the videos. "": the metrics that need it are left out.

    detector: "miniature", or a Grounding DINO. clip, dino, detector: a folder, or "hub:OWNER/NAME". flow: a file of
    RAFT's weights. threshold: of Grounding DINO. misses: what a frame without a detection counts as."""

    detector: str = ""
    threshold: float = 0.35
    clip: str = ""
    dino: str = ""
    flow: str = ""
    misses: Misses = "worst"

    def __post_init__(self) -> None:
        if self.misses not in get_args(Misses):
            raise ValueError(f"metrics.misses is {self.misses!r}; choose {' or '.join(get_args(Misses))}.")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"metrics.threshold is {self.threshold}; it must be from 0 to 1.")


@dataclass(frozen=True)
class Subject:
    """name: of its file. word: what the prompts and the detector call it. picture: RGBA as it is given."""

    name: str
    word: str
    picture: Image.Image

    @cached_property
    def cut_out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(colour [H, W, 3], alpha [H, W]), 0..1. Raises ValueError, a sentence, where it cannot be cut out."""
        pixels = torch.from_numpy(np.asarray(self.picture, np.float32) / 255)
        try:
            return extract_subject(pixels)
        except ValueError as error:
            raise ValueError(f"The subject {self.name!r}: {error}") from error

    def canvas(self, width: int, height: int) -> Array:
        """The subject image of the paper, on a blank ground: uint8 [height, width, 3]."""
        return to_bytes(place_on_canvas(*self.cut_out, width, height)[0])


@dataclass(frozen=True)
class Video:
    """One video of a benchmark: a `Case`. path: name of its boxes."""

    number: int
    subject: Subject
    path: str
    plan: BoxPlan
    caption: str

    @property
    def boxes(self) -> Array:
        """float64 [F, 4] in 0..1, NaN where the subject is hidden."""
        return array_of(self.plan.track())

    @property
    def boxes_text(self) -> str:
        return write(self.plan, "keyframes")

    @property
    def width(self) -> int:
        return self.plan.width

    @property
    def height(self) -> int:
        return self.plan.height

    @property
    def length(self) -> int:
        return self.plan.length

    def write_inputs(self, folder: Path) -> None:
        self.subject.picture.save(folder / SUBJECT_FILE.format(self.number))


@dataclass(frozen=True)
class Benchmark:
    """Subjects, box sequences by name, and prompts with {subject} for the subject's word. fps: of the videos."""

    name: str
    fps: float
    seeds: tuple[int, ...]
    limit: int
    subjects: tuple[Subject, ...]
    paths: Mapping[str, BoxPlan]
    prompts: tuple[str, ...]
    model: Mapping[str, str]
    metrics: Metrics

    @property
    def combinations(self) -> int:
        return len(self.subjects) * len(self.paths) * len(self.prompts)

    def videos(self, count: int | None = None) -> list[Video]:
        """The first `count` videos, or as many as the file says.

        Video i with j = i mod (S B), for S subjects, B paths and P prompts, has subject j mod S, path
        (j mod S + j div S) mod B and prompt (j + i div (S B)) mod P. So the first S B videos have every subject with
        every path once, with all prompts in turn; no combination comes twice, and any beginning is varied.
        Raises ValueError for more videos than there are combinations."""
        count = count or self.limit or self.combinations
        if not 0 < count <= self.combinations:
            raise ValueError(f"{count} videos are asked for; the benchmark has {self.combinations} combinations.")
        names, found = list(self.paths), []
        for i in range(count):
            block, j = divmod(i, len(self.subjects) * len(names))
            turn, s = divmod(j, len(self.subjects))
            subject, name = self.subjects[s], names[(s + turn) % len(names)]
            prompt = self.prompts[(j + block) % len(self.prompts)].replace("{subject}", subject.word)
            found.append(Video(i, subject, name, self.paths[name], prompt))
        return found

    def digest(self) -> str:
        """SHA-256 that changes with any subject, path or prompt, and so with any video."""
        found = hashlib.sha256(repr((self.fps, list(self.prompts))).encode())
        for subject in self.subjects:
            found.update(repr((subject.name, subject.word, subject.picture.size)).encode() + subject.picture.tobytes())
        for name, plan in self.paths.items():
            found.update(name.encode() + write(plan, "keyframes").encode())
        return found.hexdigest()

    def setup(self, **settings: Any) -> Setup:
        """settings: the other fields of `Setup`."""
        return Setup(**self.model, **settings)


# --- reading the file -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """What stands in the TOML file, as it stands there."""

    width: int
    height: int
    frames: int
    subjects: str
    boxes: str | dict[str, Any]
    prompts: str | list[str]
    fps: float = 8.0
    videos: int = 0
    seeds: tuple[int, ...] = (0,)
    layout: tuple[int, ...] = ()
    model: Mapping[str, str] | None = None
    metrics: Mapping[str, Any] | None = None


#: What a setting may be; of a list, what its entries must be.
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("width", "height", "frames", "videos"), (int,)),
    **dict.fromkeys(("fps", "threshold"), (int, float)),
    **dict.fromkeys(("subjects", "detector", "clip", "dino", "flow", "misses", "unet", "vae", "adapter"), (str,)),
    **dict.fromkeys(("model", "metrics"), (dict,)),
    **{"boxes": (str, dict), "prompts": (str, list), "seeds": (list,), "layout": (list,)},
}
ENTRIES: dict[str, type] = {"prompts": str, "seeds": int, "layout": int}


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of a .toml file, or of a shipped one's name. Folders in it are looked for beside it.

    Raises ValueError, a sentence, for what is missing, unknown or wrong in it."""
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    if not path.is_file() or (path.parent == SHIPPED and path.stem != Path(name).stem):
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise ValueError(f"{name} is no .toml file and no benchmark that is included; those are {shipped}.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from error
    file = _checked(File, values, path.name)
    model = dict(file.model or {})
    _check_settings(model, MODEL, f"[model] of {path.name}")
    subjects = _subjects(file.subjects, path.parent)
    plans = _paths(file, path.parent)
    prompts = _prompts(file.prompts, path.parent)
    found = (len(subjects), len(plans), len(prompts))
    if file.layout and tuple(file.layout) != found:
        raise ValueError(
            f"{path.name} is laid out for {' x '.join(map(str, file.layout))} subjects, box sequences and prompts, and "
            f"there are {' x '.join(map(str, found))}; fill the folders {path.parent / file.subjects} and so on, or "
            "change layout."
        )
    return Benchmark(
        path.stem, file.fps, tuple(file.seeds), file.videos, subjects, plans, prompts, model,
        _checked(Metrics, file.metrics or {}, f"[metrics] of {path.name}"),
    )  # fmt: skip


def _checked(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    _check_settings(values, [field.name for field in fields(cls)], where)
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{where} lacks a setting: {str(error).partition(' ')[2]}.") from error


def _check_settings(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises ValueError for settings that are not known or of another kind than they must be."""
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown setting {unknown} in {where}; known are {sorted(known)}.")
    for name, value in values.items():
        entries = value if isinstance(value, list) else ()
        if not isinstance(value, KINDS[name]) or not all(isinstance(entry, ENTRIES[name]) for entry in entries):
            kinds = " or ".join(kind.__name__ for kind in KINDS[name])
            of = f" of {ENTRIES[name].__name__}" if list in KINDS[name] else ""
            raise ValueError(f"{name} is {show(value)} in {where}; it must be {kinds}{of}.")


def _subjects(given: str, beside: Path) -> tuple[Subject, ...]:
    if given == DRAWN:
        return tuple(Subject(name, name, picture) for name, picture in drawn_subjects().items())
    files = _files(beside / given, PICTURES, "a picture per subject, named by its word (dog.png, dog-2.png)")
    found = []
    for file in files:
        try:
            picture = ImageOps.exif_transpose(Image.open(file)).convert("RGBA")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file} cannot be read as a picture ({error}).") from error
        word = " ".join(re.findall(r"[^\W\d_]+", file.stem)) or "thing"
        found.append(Subject(file.stem, word, picture))
    for subject in found:
        _ = subject.cut_out  # told now, not after hours
    return tuple(found)


def _paths(file: File, beside: Path) -> dict[str, BoxPlan]:
    if isinstance(file.boxes, str):
        sources: dict[str, Any] = {p.stem: p for p in _files(beside / file.boxes, BOXES, "a box file per sequence")}
    else:
        sources = {name: value if isinstance(value, str) else json.dumps(value) for name, value in file.boxes.items()}
    found = {}
    for name, value in sources.items():
        length = None if isinstance(value, Path) else file.frames  # a file's motion is resampled
        try:
            plan = read_any(value, file.width, file.height, length, fps=file.fps)
        except ValueError as error:
            raise ValueError(f"The boxes {name!r}: {error}") from error
        plan = plan if plan.length == file.frames else plan.resample(file.frames)
        found[name] = BoxPlan((plan.track(),), file.width, file.height, file.fps)
    if not found:
        raise ValueError("The benchmark has no box sequences; give a folder of them, or a table [boxes].")
    return found


def _prompts(given: str | list[str], beside: Path) -> tuple[str, ...]:
    lines = given
    if isinstance(given, str):
        try:
            lines = (beside / given).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"The prompts {beside / given} cannot be read ({error}); one prompt a line.") from error
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise ValueError("The benchmark has no prompts; give a list of them, or a text file with one a line.")
    return prompts


def _files(folder: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes) if folder.is_dir() else []
    if not files:
        raise ValueError(f"There is nothing in {folder}; put {what} there ({', '.join(suffixes)}).")
    return files

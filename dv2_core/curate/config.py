"""One TOML file says everything about a curation: the source, the models, and every threshold."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

PRESETS = Path(__file__).parent / "configs"
DEFAULT_PRESET = "paper"

#: What a setting of that type must be, for sentences.
TYPES: dict[Any, str] = {int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class ModelsConfig:
    """Table [models]: folders on this machine or names on the hub; "" where there is none.

    detector: Grounding DINO. segmenter: SAM 2, for the first frame. tracker: SAM 2 for the rest; "" is the segmenter.
    Each of the three may be an .onnx file instead: a salient-object network such as ISNet, see ``matte``.
    captioner: a model that writes about a picture, such as BLIP; for clips without a caption.
    language: a spaCy pipeline with a tagger and a parser, which finds the subject's word in the caption.
    device: "auto" is a GPU where there is one. precision: "bf16" is half precision.
    """

    detector: str = ""
    segmenter: str = ""
    tracker: str = ""
    captioner: str = ""
    language: str = "en_core_web_sm"
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class ProbeConfig:
    """Table [probe]: which videos are read at all. max_side in pixels. uneven: share of frames that may come late."""

    max_side: int = 4096
    max_seconds: float = 600.0
    uneven: float = 0.02


@dataclass(frozen=True)
class SplitConfig:
    """Table [split]: scenes. cut: FFmpeg's scene score (0..1) from which a frame begins one. Seconds: of a clip."""

    cut: float = 0.2
    min_seconds: float = 2.0
    max_seconds: float = 4.0


@dataclass(frozen=True)
class CaptionConfig:
    """Table [caption]. prompt: what the captioner is asked, "" for models that take none. tokens: at most so many."""

    prompt: str = ""
    tokens: int = 40


@dataclass(frozen=True)
class SubjectConfig:
    """Table [subject]. ignore: nouns about the picture itself, which are never its subject."""

    ignore: tuple[str, ...] = (
        "angle", "animation", "background", "blur", "camera", "clip", "close", "closeup", "day", "drone", "footage",
        "frame", "front", "hd", "image", "lapse", "motion", "night", "panorama", "picture", "scene", "screen", "shot",
        "side", "slow", "time", "timelapse", "video", "view", "zoom",
    )  # fmt: skip


@dataclass(frozen=True)
class DetectConfig:
    """Table [detect]. threshold: score of a box that counts. same: boxes that overlap more (IoU) are one box."""

    threshold: float = 0.35
    same: float = 0.8


@dataclass(frozen=True)
class SizeConfig:
    """Table [size]: smallest and largest share of the frame's width, height and area that the subject's box takes."""

    width: tuple[float, float] = (0.05, 0.9)
    height: tuple[float, float] = (0.05, 0.95)
    area: tuple[float, float] = (0.01, 0.8)


@dataclass(frozen=True)
class VisibleConfig:
    """Table [visible]. least: share of the frames in which the subject must be seen."""

    least: float = 0.9


@dataclass(frozen=True)
class MotionConfig:
    """Table [motion]. overlap: the most that the first and the last box may overlap (IoU)."""

    overlap: float = 0.75


@dataclass(frozen=True)
class QualityConfig:
    """Table [quality]: the optional filters.

    sharpness: least variance of the Laplacian, of frames 256 pixels high with values 0..255.
    text: what the detector looks for in the first frame. text_threshold: score from which that counts.
    """

    sharpness: float = 30.0
    text: tuple[str, ...] = ("watermark", "caption text")
    text_threshold: float = 0.35


@dataclass(frozen=True)
class CurateConfig:
    """A curation; tables are the classes above.

    source: a folder, a list (.jsonl, .csv) or shards (.tar, with wildcards). kind: of the source; see ``importers``.
    root: folder below which a list's videos lie; "" is the list's own. fps: of folders of pictures.
    skip: names of stages that are left out.
    side: longer side in pixels at which models see a frame; masks are made as large as the video again.
    batch: clips that are taken through a stage together; the captioner sees them at once.
    shards: clips per WebDataset shard; 0 writes none. audit: clips per reason on the audit page.
    """

    source: str = ""
    kind: Literal["auto", "folder", "jsonl", "csv", "shards", "davis", "omni", "videobooth"] = "auto"
    root: str = ""
    fps: float = 24.0
    skip: tuple[str, ...] = ("blur", "cut", "text")
    side: int = 640
    batch: int = 8
    shards: int = 0
    audit: int = 40
    models: ModelsConfig = field(default_factory=ModelsConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    subject: SubjectConfig = field(default_factory=SubjectConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    size: SizeConfig = field(default_factory=SizeConfig)
    visible: VisibleConfig = field(default_factory=VisibleConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)

    def __post_init__(self) -> None:
        for name, least in (("side", 16), ("batch", 1), ("shards", 0), ("audit", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        if not 0 < self.split.min_seconds <= self.split.max_seconds:
            raise ValueError(
                f"split.min_seconds is {self.split.min_seconds} and max_seconds {self.split.max_seconds}; give 0 < "
                "min_seconds <= max_seconds."
            )
        for name in ("width", "height", "area"):
            low, high = getattr(self.size, name)
            if not 0 <= low < high <= 1:
                raise ValueError(f"size.{name} is {[low, high]}; give [least, most] with 0 <= least < most <= 1.")

    @classmethod
    def load(cls, name: str | Path) -> CurateConfig:
        """A preset with a folder or list as its source, or a TOML file. Raises ValueError with a sentence."""
        path = Path(name)
        if path.suffix == ".toml":
            return cls.from_dict(read_toml(path))
        return cls.from_dict({**read_toml(PRESETS / f"{DEFAULT_PRESET}.toml"), "source": str(name)})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CurateConfig:
        """Settings as in the TOML file; a key that is not a setting is refused by name, and so is another type."""
        config: CurateConfig = _from_table(cls, values, "the curation config")
        if not config.source:
            raise ValueError('the curation config has no source; write source = "a folder, a list or shards".')
        return config


def read_toml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a file, over those of the preset or file that it ``extends``, tables key by key."""
    if not path.is_file():
        raise ValueError(f"There is no config {path}; give a .toml file, or a folder or list of videos.")
    if path.resolve() in above:
        raise ValueError(f"{path.name} extends itself; remove that line, or name another preset.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from error
    parent = values.pop("extends", None)
    if parent is None:
        return values
    presets = sorted(p.stem for p in PRESETS.glob("*.toml"))
    if not isinstance(parent, str) or (parent not in presets and not (path.parent / parent).is_file()):
        raise ValueError(f"extends is {parent!r} in {path.name}; give a file beside it, or one of {presets}.")
    file = PRESETS / f"{parent}.toml" if parent in presets else path.parent / parent
    base = read_toml(file, (*above, path.resolve()))
    tables = {k: {**base[k], **v} for k, v in values.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **values, **tables}


def _from_table(cls: type[Any], values: Any, where: str) -> Any:
    """A dataclass from a table, tables within it likewise."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {values!r}; it must be a table, [{where}].")
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"unknown setting {unknown} in {where}; known are {sorted(hints)}.")
    return cls(**{name: _value(hints[name], value, name, where) for name, value in values.items()})


def _value(hint: Any, value: Any, name: str, where: str) -> Any:
    if is_dataclass(hint):
        return _from_table(hint, value, name)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} is {value!r} in {where}; it must be one of {list(get_args(hint))}.")
        return value
    if get_origin(hint) is tuple:
        items, count = get_args(hint), len(get_args(hint))
        endless = items[-1] is Ellipsis
        if not isinstance(value, list) or (not endless and len(value) != count):
            raise ValueError(f"{name} is {value!r} in {where}; it must be a list{'' if endless else f' of {count}'}.")
        return tuple(_value(items[0], item, name, where) for item in value)
    wanted = (int, float) if hint is float else hint
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError(f"{name} is {value!r} in {where}; it must be {TYPES[hint]}.")
    return hint(value)

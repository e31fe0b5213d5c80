"""Settings of the training data: the table ``[data]`` of a training config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Draws:
    """What the random numbers of a batch depend on, beside its step and process.

    Attributes:
        seed: of the training.
        batch: clips per process and step.
        drop_text, drop_ref, drop_motion: chances (0..1) of training a clip without that condition.
    """

    seed: int = 0
    batch: int = 8
    drop_text: float = 0.1
    drop_ref: float = 0.1
    drop_motion: float = 0.1


@dataclass(frozen=True)
class AugmentConfig:
    """Changes of the subject image against copy-paste; each is the chance (0..1) that one is made. See ``augment``.

    Attributes:
        mirror: left and right swapped. Never, unless asked for: a subject that faces another way than in its clip
            makes the answer a coin toss at high noise (docs/decisions.md).
        rotate: turned by up to 15 degrees either way.
        scale: 60 to 95 % of the canvas's shorter side instead of 82 %.
        colour: brightness, contrast and saturation changed by up to 15 %.
        crop: up to a quarter of the subject's width or height cut off at one side.
    """

    mirror: float = 0.0
    rotate: float = 0.5
    scale: float = 0.5
    colour: float = 0.25
    crop: float = 0.25

    def __post_init__(self) -> None:
        for name, chance in asdict(self).items():
            if not 0 <= chance <= 1:
                raise ValueError(f"augment.{name} is {chance}; it is a chance, so it must lie in 0..1.")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ABC):
    """What every kind of data has. ``DataConfig.from_dict`` picks the kind by the key ``kind``.

    Attributes:
        num_frames: frames of a clip.
        workers: processes that prepare batches ahead; 0 prepares them in the training process.
        validation_clips: held-out clips, at most, that the validation loss is measured on.
    """

    kind: ClassVar[str] = ""

    num_frames: int = 8
    workers: int = 0
    validation_clips: int = 16

    def __post_init__(self) -> None:
        for name, least in (("num_frames", 1), ("workers", 0), ("validation_clips", 1)):
            _at_least(self, name, least)

    @property
    @abstractmethod
    def frame_size(self) -> tuple[int, int]:
        """(width, height) of the frames in pixels."""

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> DataConfig:
        """Read the table; an unknown kind or a key that is not a setting of the kind is refused by name."""
        settings = dict(values)
        kind = settings.pop("kind", MiniWorldConfig.kind)
        if kind not in KINDS:
            raise ValueError(f"data.kind is {kind!r}; choose one of {', '.join(KINDS)}.")
        if isinstance(settings.get("augment"), Mapping):
            settings["augment"] = _from_table(AugmentConfig, settings["augment"], "data.augment")
        return _from_table(KINDS[kind], settings, f"data (kind {kind!r})")

    def to_dict(self) -> dict[str, Any]:
        """The table again: ``DataConfig.from_dict(config.to_dict()) == config``."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class MiniWorldConfig(DataConfig):
    """Clips drawn from the mini-world's atlas, without end (see ``dv2_core.world``).

    Attributes:
        atlas: file of the sprites. latent: file of a patch PCA, or of the autoencoder that holds it.
        size: side of the square frames in pixels.
        text_tokens: length of a tokenised caption.
    """

    kind: ClassVar[str] = "mini-world"

    atlas: str
    latent: str
    size: int = 64
    text_tokens: int = 16

    @property
    def frame_size(self) -> tuple[int, int]:
        return self.size, self.size


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(DataConfig):
    """Real clips, from a manifest (see ``dv2_core.manifest``) or from WebDataset shards of the same rows.

    Attributes:
        manifest: a .jsonl file. shards: .tar files, as a glob pattern or with {000..099} ranges. Give one of the two.
        root: folder below which the manifest's paths lie; "" is the manifest's own folder.
        validation: a manifest of held-out clips; "" holds out ``held_out`` of the videos (0..1, at least one video).
        width, height: of the frames in pixels, multiples of 8: a clip is resized to cover them and cropped around its
            centre. fps: frames per second that clips are read at.
        vae: file or folder of the autoencoder. text_encoder: file or folder of the text encoder; both stay frozen.
        cache: folder for latents and text embeddings.
        augment: changes of the subject image. variants: how many differently drawn subject images a clip has.
    """

    kind: ClassVar[str] = "clips"

    vae: str
    text_encoder: str
    cache: str
    manifest: str = ""
    shards: str = ""
    root: str = ""
    validation: str = ""
    held_out: float = 0.05
    num_frames: int = 16
    width: int = 448
    height: int = 256
    fps: float = 8.0
    workers: int = 2
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    variants: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.manifest) == bool(self.shards):
            raise ValueError("data needs either manifest (a .jsonl file) or shards (.tar files); give one of the two.")
        if self.shards and self.root:
            raise ValueError("data.root belongs to a manifest; shards hold their own videos. Leave one of the two out.")
        for name in ("width", "height"):
            if getattr(self, name) < 8 or getattr(self, name) % 8:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be a multiple of 8, as latents are.")
        if not self.fps > 0:
            raise ValueError(f"data.fps is {self.fps}; it must be above 0.")
        if not self.validation and not 0 < self.held_out < 1:
            raise ValueError(f"data.held_out is {self.held_out}; it is a share of the videos, above 0 and below 1.")
        _at_least(self, "variants", 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        return self.width, self.height


TYPES = {"int": (int, "a whole number"), "float": ((int, float), "a number"), "str": (str, "text")}

KINDS: dict[str, type[DataConfig]] = {c.kind: c for c in (MiniWorldConfig, ClipsConfig)}


def _at_least(config: DataConfig, name: str, least: int) -> None:
    value = getattr(config, name)
    if value < least:
        raise ValueError(f"data.{name} is {value}; it must be {least} or more.")


def _from_table(cls: type[Any], values: Mapping[str, Any], table: str) -> Any:
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown setting {unknown} in {table}; known are {sorted(known)}.")
    for name, value in values.items():
        kind = str(known[name].type)
        if kind in TYPES and (isinstance(value, bool) or not isinstance(value, TYPES[kind][0])):
            raise ValueError(f"{name} is {value!r} in {table}; it must be {TYPES[kind][1]}.")
    try:
        return cls(**values)
    except TypeError as error:  # a required setting is missing
        raise ValueError(f"{table}: {str(error).partition(') ')[2] or error}.") from error

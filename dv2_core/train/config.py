"""One TOML file says everything about a training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..model import AdapterConfig, UNet3DConfig
from .data_config import DataConfig, Draws, MiniWorldConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

PARTS = ("base", "text", "adapter")
PRESETS = Path(__file__).parent / "configs"
UNETS = {"miniature": UNet3DConfig.miniature, "modelscope": UNet3DConfig.modelscope}


@dataclass(frozen=True)
class TextConfig:
    """Shape of the miniature's CLIP text encoder: the table ``[text]``, used where the data holds tokens."""

    width: int = 128
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training: the TOML keys are these names; data, adapter, text and unet are tables.

    Attributes:
        trains: the parts that learn: "base" (UNet), "text" (text encoder), "adapter". What is not named stays frozen.
        data: what it learns from; see ``data_config``.
        steps: optimiser steps.
        init: weights to start from: a folder that a training exported, a file of a ModelScope-family UNet, or "random".
        unet: sizes of the base; in TOML a table or the name "miniature" or "modelscope".
        adapter: choices of the method; see :class:`~dv2_core.model.AdapterConfig`.
        batch: clips per process and forward pass.
        total_batch: clips per optimiser step, over all processes and accumulated passes; 0: one pass of each process.
        optimizer: "adamw", "adamw8bit" (needs bitsandbytes) or "muon" (needs timm).
        lr, warmup, decay: the rate, steps of its linear rise, and the last share of the steps (0..1) in which it falls
            to 5 % along a cosine; in between it is constant.
        adamw_lr_scale: under "muon" the rate of the parameters that AdamW takes, as a share of ``lr``.
        weight_decay, betas, grad_clip: as usual; gradients longer than ``grad_clip`` are shortened to it.
        ema: decay of the weights' moving average, which is what is validated, sampled and exported.
        drop_text, drop_ref, drop_motion: chances of training a clip without that condition.
        mixed_precision: "no" or "bf16". frozen_dtype: how a base that does not learn is kept in memory.
        gradient_checkpointing: run blocks again in the backward pass in place of keeping their activations.
        log_steps: steps between two rows of the log; also how often several processes agree on stopping.
        save_steps, save_minutes: a resumable checkpoint at least this often; 0: not by that measure.
        validate_steps: validation loss and report this often; 0: never.
        sample_steps: sample videos and export of the weights this often; 0: export at the end, no samples.
        samples, sampling_steps: how many held-out examples are generated, in how many DDIM steps.
        directions: teach the mini-world's direction word first and along the way; see :mod:`.directions`.
    """

    trains: tuple[str, ...]
    data: DataConfig
    steps: int
    init: str = "random"
    unet: UNet3DConfig = field(default_factory=UNet3DConfig.miniature)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    text: TextConfig = field(default_factory=TextConfig)
    batch: int = 8
    total_batch: int = 0
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = 1e-3
    warmup: int = 100
    decay: float = 0.5
    adamw_lr_scale: float = 0.4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    grad_clip: float = 1.0
    ema: float = 0.998
    drop_text: float = 0.1
    drop_ref: float = 0.1
    drop_motion: float = 0.1
    mixed_precision: Literal["no", "bf16"] = "no"
    frozen_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    seed: int = 0
    log_steps: int = 10
    save_steps: int = 0
    save_minutes: float = 5.0
    validate_steps: int = 250
    sample_steps: int = 500
    samples: int = 6
    sampling_steps: int = 20
    directions: bool = False

    def __post_init__(self) -> None:
        if not self.trains or set(self.trains) - set(PARTS):
            raise ValueError(f"trains is {list(self.trains)}; name one or more of {list(PARTS)}.")
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise ValueError(f"{name} is {value!r}; it must be one of {list(get_args(hint))}.")
            if hint in (int, float) and (isinstance(value, bool) or not isinstance(value, (int, hint))):
                kind = "a whole number" if hint is int else "a number"
                raise ValueError(f"{name} is {value!r}; it must be {kind}.")
        for name, least in (("steps", 1), ("batch", 1), ("log_steps", 1), ("samples", 1), ("sampling_steps", 1),
                            ("warmup", 0), ("save_steps", 0), ("validate_steps", 0), ("sample_steps", 0),
                            ("total_batch", 0), ("save_minutes", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; it is a share of the steps, so it must be from 0 to 1.")
        if self.lr <= 0 or self.grad_clip <= 0:
            raise ValueError(f"lr is {self.lr} and grad_clip {self.grad_clip}; both must be above 0.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must be 0 (no averaging) or more, and below 1.")
        if self.frozen_dtype != "fp32" and self.mixed_precision == "no":
            raise ValueError(
                f'frozen_dtype is {self.frozen_dtype!r} and mixed_precision "no": a frozen base in low precision needs '
                'the other layers in low precision too. Set mixed_precision = "bf16", or frozen_dtype = "fp32".'
            )

        whole = isinstance(self.data, MiniWorldConfig) and set(self.trains) == set(PARTS)
        if self.directions and not (whole and self.adapter.prediction == "v_zsnr"):
            raise ValueError(
                "directions is true: the direction word is taught to the whole miniature with zero terminal SNR. Set "
                'data of kind "mini-world", trains = ["base", "text", "adapter"] and prediction = "v_zsnr", or leave '
                "directions out."
            )

    @property
    def has_adapter(self) -> bool:
        return "adapter" in self.trains

    @property
    def draws(self) -> Draws:
        """What the data needs to know of the training."""
        return Draws(self.seed, self.batch, self.drop_text, self.drop_ref, self.drop_motion)

    def accumulate(self, processes: int) -> int:
        """Forward passes of each process per optimiser step. ValueError if total_batch cannot be had exactly."""
        at_once = self.batch * processes
        if self.total_batch % at_once:
            raise ValueError(
                f"total_batch is {self.total_batch}, and {processes} processes of batch {self.batch} make {at_once} at "
                "once, which does not divide it. Change batch, total_batch or the number of processes."
            )
        return max(1, self.total_batch // at_once)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values: what is written into exported files and checkpoints."""
        return {**asdict(self), "data": self.data.to_dict()}

    @classmethod
    def load(cls, name: str | Path) -> TrainConfig:
        """Read a preset by name, or a TOML file by path. Raises ValueError with a sentence for what it cannot use."""
        return cls.from_dict(read_toml(config_path(name)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Settings as in the TOML file; a key that is not a setting is refused by name."""
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        _refuse_unknown(cls, settings, "the training config")
        missing = sorted({"trains", "data", "steps"} - set(settings))
        if missing:
            raise ValueError(f"the training config has no {' and no '.join(missing)}; these it must say.")
        for table in ("data", "adapter", "text"):
            if not isinstance(settings.get(table, {}), Mapping):
                raise ValueError(f"{table} is {settings[table]!r}; it must be a table, [{table}].")
        unet = settings.get("unet", "miniature")
        if isinstance(unet, str) and unet not in UNETS:
            raise ValueError(f"unet is {unet!r}; give a table, or one of {sorted(UNETS)}.")
        unet = UNETS[unet]() if isinstance(unet, str) else UNet3DConfig.from_dict(unet)
        _refuse_unknown(TextConfig, settings.get("text", {}), "[text]")
        text = TextConfig(**settings.get("text", {}))
        data = DataConfig.from_dict(settings["data"])
        trained = (data.num_frames, *data.frame_size, round(getattr(data, "fps", 8)))
        adapter = AdapterConfig.from_dict({"trained": trained, **settings.get("adapter", {}), "unet": unet.to_dict()})
        return cls(**{**settings, "data": data, "unet": unet, "adapter": adapter, "text": text})


def config_path(name: str | Path) -> Path:
    """The file of a preset's name or a path. Raises ValueError with the presets' names if it is neither."""
    path, preset = Path(name), PRESETS / f"{name}.toml"
    if path.suffix == ".toml" and path.is_file():
        return path
    if preset.parent == PRESETS and preset.is_file():
        return preset
    presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
    raise ValueError(f"{name} is no .toml file and no preset; the presets are {presets}.")


def read_toml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a file, over those of the preset or file that it ``extends``, tables key by key."""
    if path.resolve() in above:
        raise ValueError(f"{path.name} extends itself; remove that line, or name another preset.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from error
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ValueError(f"extends is {parent!r} in {path.name}; give one preset's name or one path.")
    beside = path.parent / parent
    base = read_toml(beside if beside.is_file() else config_path(parent), (*above, path.resolve()))
    own, inherited = values.get("data"), base.get("data")
    if isinstance(own, dict) and isinstance(inherited, dict) and own.get("kind") not in (None, inherited.get("kind")):
        del base["data"]  # another kind of data shares no settings with the one it replaces
    tables = {k: {**base[k], **v} for k, v in values.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **values, **tables}


def _refuse_unknown(cls: type[Any], values: Mapping[str, Any], where: str) -> None:
    known = [f.name for f in fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown setting {unknown} in {where}; known are {sorted(known)}.")

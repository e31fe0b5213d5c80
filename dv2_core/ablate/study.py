"""What is common to all rows of one ablation, and the training config of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from ..world.atlas import Atlas
from ..world.clips import World
from .rows import CLIPS, PROTOCOLS, TRAINING, UNTRAINED, Row, curve_steps

if TYPE_CHECKING:
    from ..evaluate.pairs import Pair
    from ..train.config import TrainConfig

#: Of the validation clips: neither the evaluation's 2410 nor a seed of a training.
WORLD_SEED = 5003


@dataclass(frozen=True)
class Study:
    """One ablation: everything that every row shares.

    Attributes:
        base: folder with the exported base and text encoder that every row starts from.
        atlas: file of the sprites. vae: file of the miniature's autoencoder. detector: file of the segmenter.
        protocol: a key of PROTOCOLS.
        steps: optimiser steps of every training. pairs: validation pairs, 1..48. seeds: of the trainings.
        training, clips: settings of every training and of its clips, as in a training config.
    """

    base: Path
    out: Path
    atlas: Path
    vae: Path
    detector: Path
    protocol: str = "frozen"
    steps: int = 600
    pairs: int = 48
    seeds: tuple[int, ...] = (0, 1)
    training: Mapping[str, Any] = field(default_factory=lambda: dict(TRAINING))
    clips: Mapping[str, int] = field(default_factory=lambda: dict(CLIPS))

    def __post_init__(self) -> None:
        from ..train.files import ADAPTER, BASE, TEXT

        missing = [name for name in (BASE, TEXT) if not (self.base / name).is_file()]
        if missing or (self.base / ADAPTER).exists():
            wrong = f"has no {' and no '.join(missing)}" if missing else f"holds an adapter, {ADAPTER}"
            raise ValueError(
                f"{self.base} {wrong}; every row starts from a base alone. Give the export folder of a training of "
                'trains = ["base", "text"].'
            )

    def config(self, row: Row, seed: int) -> TrainConfig:
        """The training of a row; two rows differ in their ``changes`` and in nothing else, the order of the data
        included. Raises ValueError for a base file without the settings of its network."""
        from ..train.config import TrainConfig
        from ..train.files import BASE, TEXT

        base, text = read_metadata(self.base / BASE), read_metadata(self.base / TEXT)
        shape = json.loads(text["dreamvideo2.text"])
        return TrainConfig.from_dict({
            **self.training,
            "trains": PROTOCOLS[self.protocol],
            "init": str(self.base),
            "steps": self.steps,
            "seed": seed,
            "validate_steps": 0,
            "sample_steps": 0,
            "unet": json.loads(base["dreamvideo2.unet"]),
            "text": {
                "width": shape["hidden_size"],
                "layers": shape["num_hidden_layers"],
                "heads": shape["num_attention_heads"],
            },
            "data": {
                "kind": "mini-world",
                "atlas": str(self.atlas),
                "latent": str(self.vae),
                "text_tokens": shape["max_position_embeddings"],
                **self.clips,
            },
            "adapter": {**row.adapter, "prediction": base["dreamvideo2.prediction"]},
        })  # fmt: skip

    def checkpoints(self, row: Row) -> list[int]:
        """The steps at which a row is measured."""
        if row == UNTRAINED:
            return [0]
        return curve_steps(self.steps) if row.curve else [self.steps]

    def result_file(self, row: Row, seed: int, step: int) -> Path:
        return self.out / "results" / row.name / f"seed{seed}-step{step:06d}.json"

    def settings(self) -> dict[str, Any]:
        """What all results of one folder have in common, weights and data by their SHA-256."""
        from ..train.files import BASE, TEXT

        files = {"base": self.base / BASE, "text": self.base / TEXT, "atlas": self.atlas, "vae": self.vae,
                 "detector": self.detector}  # fmt: skip
        kept = {k: v for k, v in asdict(self).items() if k in ("protocol", "steps", "pairs", "training", "clips")}
        sha256 = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        return json.loads(json.dumps({**kept, "world_seed": WORLD_SEED, "sha256": sha256}))


def read_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if not metadata.get("format", "").startswith("dreamvideo2-"):
        raise ValueError(f"{path} was not written by the trainer; give the export folder of a training of the base.")
    return metadata


def validation_pairs(atlas: Atlas, count: int, size: int, num_frames: int) -> list[Pair]:
    """The first `count` pairs (1..48) of the validation world, each of another concept.

    The concepts are those of the test split, as in the evaluation, but these clips are others than its 192: other
    hues, paths, backgrounds and captions. Raises ValueError if there are fewer concepts than pairs."""
    from ..evaluate.metrics import GALLERY
    from ..evaluate.pairs import Pair

    concepts = {atlas.sprites[i].name for i in atlas.indices("test")}
    if not 1 <= count <= min(GALLERY, len(concepts)):
        raise ValueError(
            f"{count} pairs were asked for; give 1 to {min(GALLERY, len(concepts))} (a gallery holds {GALLERY}, and "
            f"the atlas has {len(concepts)} held-out concepts)."
        )
    world = World(atlas, "test", size, num_frames, seed=WORLD_SEED)
    drawn: dict[str, Pair] = {}
    index = 0
    while len(drawn) < count:
        clip = world.clip(index)
        drawn.setdefault(clip.concept, Pair(len(drawn), clip))
        index += 1
    return list(drawn.values())

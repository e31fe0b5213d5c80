"""What several files share: for the trainer a world of drawn subjects and a training of a UNet of 32 channels, for the
evaluation held-out subjects and pairs, for curation and segmentation folders of tiny networks."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from dv2_core.evaluate.pairs import Pair
    from dv2_core.train.config import TrainConfig
    from dv2_core.world.atlas import Atlas

TINY = """
trains = ["base", "text", "adapter"]
steps = 4
batch = 2
log_steps = 1
validate_steps = 0
sample_steps = 0
samples = 2
sampling_steps = 2

[unet]
in_channels = 24
out_channels = 24
model_channels = 32
channel_mult = [1, 1]
num_res_blocks = 1
attention_levels = [1]
head_dim = 16
init_temporal_heads = 2
context_dim = 32

[adapter]
encoder_channels = [8, 8, 8, 8]
encoder_heads = 1
prediction = "v"

[text]
width = 32
layers = 1

[data]
atlas = "{folder}/atlas.safetensors"
latent = "{folder}/latent.safetensors"
num_frames = 2
validation_clips = 2
"""


@pytest.fixture(scope="session")
def tiny_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training config of a few thousand parameters; beside it an atlas of drawn subjects and its latent."""
    from dv2_core.drawn import drawn_subjects
    from dv2_core.world.atlas import Atlas, Sprite, fit_sprite
    from dv2_core.world.clips import World
    from dv2_core.world.latent import PatchPCA

    folder = tmp_path_factory.mktemp("world")
    pictures = drawn_subjects()
    sprites = [
        Sprite(concept=name, name=name, style="drawn", licence="Apache-2.0", split="train" if n % 3 else "test")
        for n, name in enumerate(pictures)
    ]
    rgba = np.stack([fit_sprite(np.asarray(picture)) for picture in pictures.values()])
    atlas = Atlas(rgba, sprites)
    atlas.save(folder / "atlas.safetensors")
    clips = World(atlas, "train")
    PatchPCA.fit(clips.clip(n).frames for n in range(24)).save(folder / "latent.safetensors")
    (folder / "tiny.toml").write_text(TINY.replace("{folder}", folder.as_posix()))
    return folder / "tiny.toml"


@pytest.fixture
def tiny_config(tiny_toml: Path) -> "TrainConfig":
    from dv2_core.train.config import TrainConfig

    return TrainConfig.load(tiny_toml)


@pytest.fixture(scope="session")
def atlas() -> "Atlas":
    from tests.unit.evaluation import ellipses

    return ellipses()


@pytest.fixture(scope="session")
def pairs(atlas: "Atlas") -> "list[Pair]":
    from dv2_core.evaluate.pairs import draw_pairs

    return draw_pairs(atlas, 12)


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Grounding DINO, ``dino``, and a SAM 2, ``sam2``; not to be changed."""
    from tests.tiny_segment import save_grounding_dino, save_sam2

    folder = tmp_path_factory.mktemp("networks")
    save_grounding_dino(folder / "dino")
    save_sam2(folder / "sam2")
    return folder


@pytest.fixture(scope="session")
def models(networks: Path) -> dict[str, str]:
    """The same as the table [models] of a curation."""
    return {"detector": str(networks / "dino"), "segmenter": str(networks / "sam2")}


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of twenty draws: quick, and no test looks at how wide they are."""
    monkeypatch.setattr("dv2_core.evaluate.metrics.RESAMPLES", 20)

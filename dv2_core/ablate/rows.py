"""The rows of the ablation as data: what each one changes of the full method, and what the paper measured for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: How every row is trained; the keys are those of a training config. Steps, seed, base and files come from the command.
TRAINING: dict[str, Any] = {
    "batch": 8,
    "optimizer": "muon",
    "lr": 3e-3,
    "warmup": 40,
    "weight_decay": 0.01,
    "ema": 0.998,
    "drop_text": 0.1,
    "drop_ref": 0.1,
    "drop_motion": 0.1,
    "mixed_precision": "bf16",
}

#: The clips, of training and validation: table [data] of a training config.
CLIPS: dict[str, int] = {"size": 64, "num_frames": 8}

#: The full method (table [adapter] of a training config); a row changes some of these. What the paper leaves open is
#: chosen as in the preset `mini`; what that adds to the paper, places in the box, is a row.
FULL: dict[str, Any] = {
    "components": ("ref", "motion"),
    "encoder_channels": (16, 32, 48, 64),
    "encoder_heads": 2,
    "lambda_m": 0.75,
    "lambda_l": 2.0,
    "ref_features": "hidden",
    "ref_head_dim": 8,
    "ref_timestep": "zero",
    "ref_uncond": "drop",
    "motion_uncond": "same",
    "steps": 15,
    "cfg": 2.0,
}

#: What the command can train: "frozen" is the paper's protocol, "unfrozen" lets base and text encoder learn too.
PROTOCOLS: dict[str, tuple[str, ...]] = {"frozen": ("adapter",), "unfrozen": ("base", "text", "adapter")}

PAPER_COLUMNS = ("mIoU", "CD", "R-DINO", "R-CLIP", "T.Cons")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: as on the command line and in file names.
        label: as in the table.
        changes: adapter settings that differ from FULL.
        weights_of: the row whose weights it samples with, where only the sampling differs; "" trains its own.
        curve: measure it along the training too, for the figure.
        table: where the paper has this row; "" where it has not.
        paper: the paper's mIoU, CD, R-DINO, R-CLIP and temporal consistency; None: not reported there.
    """

    name: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    weights_of: str = ""
    curve: bool = False
    table: str = ""
    paper: tuple[float | None, ...] = ()

    @property
    def adapter(self) -> dict[str, Any]:
        """The row's [adapter] settings."""
        return {**FULL, **self.changes}


#: The adapter before its first step is the base alone: step 0 of every row and seed.
UNTRAINED = Row("untrained", "base alone (step 0 of every row)")

ROWS: tuple[Row, ...] = (
    Row("full", "full: lambda_M .75, lambda_L 2", curve=True,
        table="2, 5-6", paper=(0.670, 0.048, 0.392, 0.751, 0.968)),
    Row("naive", "naive joint training: no mask, no reweighting", {"lambda_m": 1.0, "lambda_l": 1.0}, curve=True),
    Row("mask-0", "lambda_M 0 (binary mask)", {"lambda_m": 0.0},
        table="5-6", paper=(0.706, 0.044, 0.388, 0.755, 0.967)),
    Row("mask-0.25", "lambda_M .25", {"lambda_m": 0.25},
        table="5-6", paper=(0.693, 0.041, 0.379, 0.748, 0.964)),
    Row("mask-0.5", "lambda_M .5", {"lambda_m": 0.5},
        table="5-6", paper=(0.664, 0.051, 0.376, 0.748, 0.961)),
    Row("mask-1", "lambda_M 1 (no mask)", {"lambda_m": 1.0},
        table="5-6", paper=(0.601, 0.055, 0.370, 0.744, 0.963)),
    Row("no-motion-encoder", "no motion encoder (ControlNet on the bare mask)", {"motion_encoder": "none"},
        table="5-6", paper=(0.587, 0.062, 0.325, 0.731, 0.963)),
    Row("no-motion-module", "no motion module (mask of reference attention alone)", {"components": ("ref",)}),
    Row("loss-1", "lambda_L 1 (no reweighted loss)", {"lambda_l": 1.0},
        table="5-6", paper=(0.650, 0.053, 0.362, 0.740, 0.961)),
    Row("loss-1.5", "lambda_L 1.5", {"lambda_l": 1.5}, table="5-6", paper=(0.676, 0.050, 0.370, 0.745, 0.965)),
    Row("loss-4", "lambda_L 4", {"lambda_l": 4.0}, table="5-6", paper=(0.647, 0.056, 0.389, 0.750, 0.964)),
    Row("subject-only", "subject only (no motion module, no mask, no reweighting)",
        {"components": ("ref",), "lambda_m": 1.0, "lambda_l": 1.0},
        table="3", paper=(None, None, None, None, 0.972)),
    Row("motion-only", "motion only", {"components": ("motion",)}, table="4", paper=(0.752, 0.039, None, None, 0.969)),
    Row("subject-at-t", "subject at the video's t", {"ref_timestep": "video"}),
    Row("attention-output", "reference attention reads an attention's output alone", {"ref_features": "attention"}),
    Row("wide-heads", "reference attention with heads as wide as the base's", {"ref_head_dim": 0}),
    Row("box-position", "ours: reference attention knows places in the box", {"ref_position": "box"}, curve=True),
    Row("shared-projections", "lite: shared reference projections", {"ref_sharing": "width"}),
    Row("lite-motion", "lite: convolutions in the place of the ControlNet", {"motion_control": "t2i_adapter"}),
    Row("lite", "lite: both, the smallest adapter", {"ref_sharing": "width", "motion_control": "t2i_adapter"}),
    Row("lite-box-position", "ours, lite: the smallest adapter knows places in the box",
        {"ref_sharing": "width", "motion_control": "t2i_adapter", "ref_position": "box"}),
    Row("uncond-subject", "sampling: subject kept in the unconditional branch", {"ref_uncond": "same"}, "full"),
    Row("uncond-none", "sampling: subject and boxes dropped there", {"motion_uncond": "drop"}, "full"),
    Row("uncond-subject-no-boxes", "sampling: subject kept, boxes dropped there",
        {"ref_uncond": "same", "motion_uncond": "drop"}, "full"),
)  # fmt: skip


def named(names: list[str]) -> list[Row]:
    """The rows of these names, in the order of the table. Raises ValueError for a name that no row has."""
    unknown = sorted(set(names) - {row.name for row in ROWS})
    if unknown:
        raise ValueError(f"there is no row {unknown}; the rows are {[row.name for row in ROWS]}.")
    return [row for row in ROWS if row.name in names]


def curve_steps(steps: int) -> list[int]:
    """Where rows with a curve are measured: 1/6, 1/3 and all of the steps."""
    return sorted({max(1, round(steps * share)) for share in (1 / 6, 1 / 3, 1)})

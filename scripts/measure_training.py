"""What a training step of the adapter costs at the full size: parameters, FLOPs, bytes; and one real step.

    python scripts/measure_training.py count > docs/scale/count.json    # nothing is computed: shapes alone
    python scripts/measure_training.py step --recompute >> docs/scale/steps.jsonl    # random weights, on the CPU

Both run the trainer's own model with the preset ``modelscope-448x256`` and print JSON, from which
``scripts/scale_tables.py`` makes the tables of docs/scale.md. Needs the extra "train".
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dv2_core.model import AdapterConfig, AttentionFunction, plain_attention, subject_features
from dv2_core.train.config import TrainConfig
from dv2_core.train.data import Batch
from dv2_core.train.dry_run import TEXT_TOKENS, Meter, fused_attention, random_batch
from dv2_core.train.model import TrainingModel
from dv2_core.train.optim import make_optimizer

PRESET = TrainConfig.load("modelscope-448x256")
PAPER = PRESET.adapter
VARIANTS = {
    "paper": PAPER,
    "ref_sharing = width": replace(PAPER, ref_sharing="width"),
    "motion_encoder = none": replace(PAPER, motion_encoder="none"),
    "motion_control = t2i_adapter": replace(PAPER, motion_control="t2i_adapter"),
    "ref_sharing = width, motion_control = t2i_adapter": replace(
        PAPER, ref_sharing="width", motion_control="t2i_adapter"
    ),
}


def networks(adapter: AdapterConfig, attention: AttentionFunction, recompute: bool = False) -> TrainingModel:
    """The trainer's model: frozen base with bf16 matrices, adapter in float32."""
    config = replace(PRESET, adapter=adapter, gradient_checkpointing=recompute)
    model = TrainingModel(config, None, torch.device("cpu"), attention)
    model.lower_frozen()
    return model


def batch(adapter: AdapterConfig, clips: int) -> Batch:
    """Random numbers in the shapes of a batch."""
    frames, width, height, _ = adapter.trained
    data = replace(PRESET.data, num_frames=frames, width=width, height=height)  # type: ignore[call-arg]
    return random_batch(replace(PRESET, adapter=adapter, data=data, batch=clips), None, TEXT_TOKENS)


def loss_of(model: TrainingModel, given: Batch) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(given)[0]


def flops(run: Callable[[], Any]) -> tuple[int, Any]:
    """FLOPs (a multiply-add is two) of matrix products and convolutions, and what ``run`` returns."""
    with Meter() as meter, torch.autocast("cpu", torch.bfloat16):
        out = run()
    return meter.flops, out


def count_flops(adapter: AdapterConfig) -> dict[str, int]:
    """Of one clip. Attention is written as two matrix products, so that its backward is counted in full."""
    with FakeTensorMode():
        model, given = networks(adapter, plain_attention), batch(adapter, 1)
        base, ref, motion = model.base, model.adapter.ref, model.adapter.motion  # type: ignore[union-attr]
        found: dict[str, int] = {}
        times, text, frames = given.timesteps, given.context, adapter.trained[0]
        with torch.no_grad():
            found["base"], _ = flops(lambda: base(given.latents, times, text, frames))
            found["subject"], features = flops(lambda: subject_features(base, given.subject, times, text))  # type: ignore[arg-type]
            found["keys_values"], _ = flops(lambda: ref.keys_values(features))  # type: ignore[union-attr]
            found["encoder"], _ = flops(lambda: motion.encode(given.masks, frames))  # type: ignore[union-attr]
        found["motion"], residuals = flops(lambda: motion(given.latents, given.masks, times, text, frames))  # type: ignore[misc]
        rows = [residual.float().sum() for name in residuals for residual in residuals[name]]
        found["motion_backward"], _ = flops(torch.stack(rows).sum().backward)
        found["forward"], loss = flops(lambda: model(given)[0])
        found["backward"], _ = flops(loss.backward)
        loss = loss_of(networks(adapter, plain_attention, recompute=True), given)
        found["backward_recomputing"], _ = flops(loss.backward)
    found["reference"] = found["forward"] - found["base"] - found["subject"] - found["motion"]
    return found


def as_on_cuda(model: nn.Module) -> None:
    """CUDA's autocast, unlike the CPU's, normalises in float32 and so keeps more for the backward pass."""
    for module in model.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.register_forward_pre_hook(lambda _, args: (args[0].float(),))


def count_bytes(adapter: AdapterConfig, recompute: bool) -> dict[str, int]:
    """Peak bytes of a step beyond weights, moments and averages: what one clip takes, and what the batch leaves alone.

    The latter are mostly the float32 gradients and the bf16 copies of the adapter's weights. Attention is fused.
    """
    peaks = []
    with FakeTensorMode():
        for clips in (1, 2):
            model, given = networks(adapter, fused_attention, recompute), batch(adapter, clips)
            as_on_cuda(model)
            with Meter() as meter:
                loss_of(model, given).backward()
            peaks.append(meter.peak)
            del model, given
    return {"clip": peaks[1] - peaks[0], "fixed": 2 * peaks[0] - peaks[1]}


def count_parameters(adapter: AdapterConfig) -> dict[str, int]:
    with FakeTensorMode():
        model: Any = networks(adapter, fused_attention)
    ref, motion = model.adapter.ref, model.adapter.motion
    parts = {"base": model.base, "ref": ref, "encoder": motion.encoder, "control": motion.controlnet}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def count() -> dict[str, Any]:
    return {
        "trained": PAPER.trained,
        "variants": {
            name: {"parameters": count_parameters(adapter), "flops": count_flops(adapter)}
            for name, adapter in VARIANTS.items()
        },
        "bytes": count_bytes(PAPER, recompute=False),
        "bytes_recomputing": count_bytes(PAPER, recompute=True),
    }


def real_step(adapter: AdapterConfig, recompute: bool) -> dict[str, Any]:
    """One step of one clip with random weights on the CPU, without the moving average.

    Seconds are the process's own, so that other load does not count. Linux only.
    """

    def peak() -> float:
        """GiB of resident memory, the most since the last call."""
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")  # starts a new peak
        return round(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**20, 2)

    model, given = networks(adapter, plain_attention, recompute), batch(adapter, 1)
    for p in model.base.parameters():
        if not p.any():  # its zero initialisations would make every gradient zero
            nn.init.normal_(p, std=0.02)
    optimizer = make_optimizer(model.learning, PRESET)
    found: dict[str, Any] = {"trained": adapter.trained, "recompute": recompute, "threads": torch.get_num_threads()}
    peak()
    found["GiB with weights"], start = peak(), time.process_time()
    loss = loss_of(model, given)
    found["GiB in forward"], forward = peak(), time.process_time()
    loss.backward()
    found["GiB in backward"], backward = peak(), time.process_time()
    optimizer.step()
    end = time.process_time()
    found["GiB in optimizer"] = peak()
    seconds = {"forward": forward - start, "backward": backward - forward, "optimizer": end - backward}
    return found | {"CPU seconds": {k: round(v, 1) for k, v in seconds.items()}, "loss": round(loss.item(), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("count", help="parameters, FLOPs and bytes, as JSON")
    one = commands.add_parser("step", help="one real training step on this machine's CPU")
    one.add_argument("--size", default="448x256", help="pixels, multiples of 8")
    one.add_argument("--frames", type=int, default=16)
    one.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    given = parser.parse_args()
    if given.command == "count":
        print(json.dumps(count(), indent=1))
    else:
        width, height = (int(side) for side in given.size.split("x"))
        print(json.dumps(real_step(replace(PAPER, trained=(given.frames, width, height, 8)), given.recompute)))


if __name__ == "__main__":
    main()

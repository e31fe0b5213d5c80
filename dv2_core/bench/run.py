"""``python -m dv2_core bench``: rows by name, a table, JSON, and where a step's time goes."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .machine import describe
from .pairs import Comparison, table
from .rows import MEANING, ROWS, SIZES, Bench

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GROUPS = {
    "convolutions": ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::cudnn_convolution",
                     "aten::_convolution_pointwise"),
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_linear"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_flash_attention_forward",
                  "aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_cudnn_attention",
                  "aten::_efficient_attention_forward", "aten::_cudnn_attention_forward"),
    "normalisation": ("aten::native_group_norm", "aten::native_layer_norm"),
    "activations": ("aten::gelu", "aten::silu", "aten::silu_"),
    "copies": ("aten::copy_", "aten::cat"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "rows: " + "; ".join(f"{name}: {meaning}" for name, meaning in MEANING.items())
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), metavar="ROW", help="default: all that can run here")
    parser.add_argument("--size", choices=tuple(SIZES), default="full",
                        help="full: ModelScopeT2V, 448x256x16; narrow: as deep, 64 channels, 256x128x8")  # fmt: skip
    parser.add_argument("--frames", type=int, help="another number of frames than the size's own")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="default: fp16 on cuda, fp32 on cpu")
    parser.add_argument("--turns", type=int, default=5, help="pairs of calls that count, after one that warms up")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps of the whole runs")
    parser.add_argument("--modelscope", type=Path, metavar="DIR", help="folder with modelscope 1.40.2's unet_sd.py")
    parser.add_argument("--clock", choices=("wall", "process"), default="wall",
                        help="process: seconds that a CPU computed, where other work runs on the machine")  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--profile", action="store_true", help="also print where the time of one step goes")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write everything as JSON")


def main(arguments: argparse.Namespace) -> None:
    if find_spec("diffusers") is None:
        raise ValueError('bench compares with diffusers, which is not installed: pip install -e ".[train]"')
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device here; leave it out to measure the CPU.")
    if arguments.turns < 1:
        raise ValueError(f"--turns is {arguments.turns}; give at least 1.")
    dtype = DTYPES[arguments.dtype or ("fp16" if device.type == "cuda" else "fp32")]
    size = SIZES[arguments.size]
    if arguments.frames is not None:
        if arguments.frames < 1:
            raise ValueError(f"--frames is {arguments.frames}; give at least 1.")
        size = replace(size, frames=arguments.frames)
    rows = arguments.rows or [name for name in ROWS if name != "step-modelscope" or arguments.modelscope]
    bench = Bench(size, device, dtype, arguments.turns, arguments.steps, arguments.modelscope,
                  arguments.clock, not arguments.no_memory)  # fmt: skip
    report(bench, rows, arguments.profile, arguments.out, {"size": arguments.size, "frames": size.frames})


@torch.no_grad()
def report(bench: Bench, rows: list[str], profiled: bool, out: Path | None, settings: dict[str, Any]) -> None:
    """Measure the rows, print each when it is there, and write what is there after each."""
    machine = describe(bench.device, bench.dtype)
    found: dict[str, Any] = {
        "machine": machine, "settings": settings | {"turns": bench.turns, "steps": bench.steps, "clock": bench.clock},
        "rows": [],
    }  # fmt: skip
    print(headline(found), flush=True)
    measured: list[Comparison] = []
    for name in rows:
        measured.append(ROWS[name](bench))
        print(table(measured[-1:]).splitlines()[-1], flush=True)
        found["rows"].append(measured[-1].to_dict())
        _write(out, found)
    if profiled:
        found["profile"] = profile_step(bench)
        _write(out, found)
    print("\n" + show(found))


def show(found: dict[str, Any]) -> str:
    """The tables of a JSON that this command wrote."""
    rows = [Comparison.from_dict(row) for row in found["rows"]]
    parts = [headline(found), table(rows)]
    once = {c.row: c.median for c in rows if c.row in ("subject", "encoder")}
    if len(once) == 2:
        parts.append(
            f"Subject pass and motion encoder together: {sum(once.values()) / 50:.2%} of 50 steps of the base."
        )
    if "profile" in found:
        shares = [f"| {name} | {share:.1%} |" for name, share in found["profile"].items()]
        parts.append("\n".join(["| of a step of the base | share |", "| --- | --- |", *shares]))
    return "\n\n".join(parts)


def headline(found: dict[str, Any]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    settings = ", ".join(f"{name} {value}" for name, value in found["settings"].items())
    return f"{machine}; {settings}"


def profile_step(bench: Bench) -> dict[str, float]:
    """Share of each group of operations in one step of the base."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        bench.step()
        if bench.device.type == "cuda":
            torch.cuda.synchronize(bench.device)
    own = {
        event.key: event.self_device_time_total if bench.device.type == "cuda" else event.self_cpu_time_total
        for event in profiler.key_averages()
        if event.device_type == DeviceType.CPU  # operations with their kernels' time; kernels are listed once more
    }
    shares = {name: sum(own.get(key, 0.0) for key in keys) for name, keys in GROUPS.items()}
    total = sum(own.values())
    return {name: time / total for name, time in shares.items()} | {"other": 1 - sum(shares.values()) / total}


def _write(out: Path | None, found: dict[str, Any]) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")

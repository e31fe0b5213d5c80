"""What a run at the full size costs inside ComfyUI: random weights in the published layout, real nodes, real memory.

    python scripts/measure_full_size.py count                         # bytes by shapes alone: nothing is computed
    python scripts/measure_full_size.py write DIR                     # 3.8 GB of random base and adapter, bf16
    python scripts/measure_full_size.py sample DIR --comfyui PATH     # 448x256, 16 frames, 2 steps with guidance
    python scripts/measure_full_size.py sample DIR --comfyui PATH --size 128x128 --frames 4 --store fp8_e4m3fn

Each prints JSON. ``sample`` measures this process's resident memory (Linux only), with everything loaded and at most
while sampling, beside ComfyUI's own estimate of what it has to free before. Seconds are of the CPU, so that other load
on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dv2_core.evaluate.engine import Comfy
from dv2_core.model import (
    Adapter,
    AdapterConfig,
    Reference,
    UNet3D,
    UNet3DConfig,
    reference_patches,
    save_adapter,
    subject_features,
)
from dv2_core.train.dry_run import Meter, fused_attention

BASE, ADAPTER, VAE = "random-base.safetensors", "random-adapter.safetensors", "random-vae.safetensors"
BOXES = '{"first": [8, 30, 40, 90], "last": [60, 10, 100, 70]}'
SIZES = ((448, 256, 16), (576, 320, 24), (1024, 576, 24))
STORES = ("bf16", "fp16", "fp32", "fp8_e4m3fn", "fp8_e5m2")
GIB = 2**30


def alive(width: int, height: int, frames: int, adapter: bool, gpu: bool) -> int:
    """Bytes of the tensors made in a pass that are alive at once: fp16, both branches of guidance, fused attention.

    gpu: as the networks work there, on tensors without values or device; else as on a CPU, in smaller pieces.
    """
    device: dict[str, Any] = dict(device="meta" if gpu else "cpu")
    size: dict[str, Any] = dict(attention=fused_attention, dtype=torch.float16, **device)
    config, rows, control = UNet3DConfig.modelscope(), 2 * frames, None
    options: dict[str, Any] = {}
    with nullcontext() if gpu else FakeTensorMode(), torch.no_grad():
        unet = UNet3D(config, **size)
        device["dtype"] = torch.float16
        x, text = torch.empty(rows, 4, height // 8, width // 8, **device), torch.empty(2, 77, 1024, **device)
        times = torch.empty(2, **device)
        if adapter:
            made: Any = Adapter(AdapterConfig(unet=config), **size)
            keys_values = made.ref.keys_values(subject_features(unet, x[:2], times, text))
            reference = Reference(made.ref, keys_values, torch.empty(rows, 1, height, width, **device))
            options = {"patches": reference_patches(), "dv2_reference": reference}
            hint = torch.empty(rows, config.model_channels, height // 8, width // 8, **device)
        with Meter() as meter:
            if adapter:
                control = made.motion.controlnet(x, hint, times, text)
            unet(x, times, text, frames, control, options)
    return meter.peak


def per_frame(width: int, height: int, adapter: bool, gpu: bool) -> float:
    """The same for each frame of the video. What does not grow with it, such as views of weights, is not counted."""
    return (alive(width, height, 16, adapter, gpu) - alive(width, height, 8, adapter, gpu)) / 8


def count() -> list[dict[str, Any]]:
    found = []
    for width, height, frames in SIZES:
        row: dict[str, Any] = {"size": f"{width}x{height}", "frames": frames}
        for name, gpu, adapter in (("GPU", True, False), ("GPU, adapter", True, True), ("CPU", False, False),
                                   ("CPU, adapter", False, True)):  # fmt: skip
            row[f"MiB {name}"] = round(frames * per_frame(width, height, adapter, gpu) / 2**20)
        found.append(row)
    return found


@torch.no_grad()
def randomise(module: torch.nn.Module) -> None:
    """Every parameter random, zero initialisations included, so large that activations stay near one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.1, generator=generator)


def write(folder: Path) -> dict[str, Any]:
    """Base, then adapter: only one of them is in memory at a time, once."""
    found: dict[str, Any] = {}
    for name, key in ((BASE, "diffusion_models"), (ADAPTER, "dreamvideo2")):
        path = folder / "models" / key / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make: Any = UNet3D if name == BASE else Adapter
        config = UNet3DConfig.modelscope() if name == BASE else AdapterConfig()
        module = make(config, dtype=torch.bfloat16)
        randomise(module)
        if name == BASE:
            save_file(module.state_dict(), path)
        else:
            save_adapter(module, path, torch.bfloat16, "", {"base_model.name": BASE})
        found[name] = sum(p.numel() for p in module.parameters())
        del module
    return found


def resident(kind: str = "VmRSS") -> int:
    """Bytes; "VmHWM": the most since :func:`new_peak`."""
    return int(re.findall(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def new_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def sample(given: argparse.Namespace) -> dict[str, Any]:
    width, height = (int(side) for side in given.size.split("x"))
    engine = Comfy(given.comfyui, given.folder)
    sys.modules["comfy.utils"].set_progress_bar_enabled(True)  # one line per step; a step takes minutes
    args = sys.modules["comfy.cli_args"].args
    setattr(args, f"{given.store}_unet", True)
    classes: Any = engine.nodes.NODE_CLASS_MAPPINGS

    def call(node: str, **inputs: Any) -> Any:
        cls = classes[node]
        return cls.execute(**inputs).result if hasattr(cls, "define_schema") else getattr(cls(), cls.FUNCTION)(**inputs)

    host: Any = sys.modules[classes["DV2LoadBase"].__module__.replace(".load", ".host.base")]
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        start, begun = resident(), time.process_time()
        model = host.load_base(given.folder / "models" / "diffusion_models" / BASE, "eps")
        loading = time.process_time() - begun
        text = torch.randn(2, 1, 77, 1024, generator=generator)
        positive, negative = ([[row, {}]] for row in text)
        if not given.without_adapter:
            (adapter,) = call("DV2LoadAdapter", adapter_name=ADAPTER)
            boxes = dict(boxes=BOXES, length=given.frames, width=width, height=height)
            masks = call("DV2BoxesToMask", **boxes)[0]
            reference: Any = sys.modules[host.__name__.replace(".base", ".reference")]
            subject = torch.randn(1, 4, height // 8, width // 8, generator=generator)
            model = reference.SubjectReference(adapter, subject, masks, 1.0, 0.75, 0.0, 1.0).attach(model)
            inputs = dict(adapter=adapter, masks=masks, strength=1.0, start=0.0, end=1.0)
            positive, negative = call("DV2MotionEncoder", positive=positive, negative=negative, **inputs)
        (latent,) = call("EmptyLatentImage", width=width, height=height, batch_size=given.frames)
        estimate = model.memory_required([2 * given.frames, 4, height // 8, width // 8])
        if control := positive[0][1].get("control"):
            estimate += control.inference_memory_requirements(model.model_dtype())
        loaded = resident()
        print(f"{loaded / GIB:.2f} GiB loaded, {estimate / GIB:.2f} GiB estimated", file=sys.stderr, flush=True)
        new_peak()
        begun, clock = time.process_time(), time.monotonic()
        inputs = dict(seed=1, steps=given.steps, cfg=9.0, denoise=1.0, latent_image=latent)
        (out,) = call("DV2Sampler", model=model, positive=positive, negative=negative, **inputs)
        peak, seconds, wall = resident("VmHWM"), time.process_time() - begun, time.monotonic() - clock
    samples = out["samples"]
    found = {
        "size": given.size, "frames": given.frames, "steps": given.steps, "store": given.store,
        "adapter": not given.without_adapter, "threads": torch.get_num_threads(),
        "finite": bool(torch.isfinite(samples).all()), "load CPU s": round(loading, 1),
        "GiB before": round(start / GIB, 2), "GiB loaded": round(loaded / GIB, 2), "GiB peak": round(peak / GIB, 2),
        "GiB activations": round((peak - loaded) / GIB, 3), "GiB estimate": round(estimate / GIB, 3),
        "CPU s per step": round(seconds / given.steps, 1), "s per step": round(wall / given.steps, 1),
    }  # fmt: skip
    path = given.folder / f"samples-{given.size}-{given.frames}-{given.steps}-{given.without_adapter}.safetensors"
    if path.is_file():  # of the first run of this size, by whatever mode
        first = load_file(path)["samples"]
        found["relative difference"] = float((samples - first).abs().max() / first.abs().max())
    else:
        save_file({"samples": samples.clone()}, path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("count", help="bytes of activations by shapes alone")
    writing = commands.add_parser("write", help="random base and adapter of the full size")
    writing.add_argument("folder", type=Path)
    one = commands.add_parser("sample", help="one run through the nodes")
    one.add_argument("folder", type=Path)
    one.add_argument("--comfyui", type=Path, required=True, help="folder of an unpacked ComfyUI")
    one.add_argument("--size", default="448x256", help="pixels, multiples of 8")
    one.add_argument("--frames", type=int, default=16)
    one.add_argument("--steps", type=int, default=2)
    one.add_argument("--store", choices=STORES, default="bf16", help="dtype of the base's weights in memory")
    one.add_argument("--without-adapter", action="store_true")
    given = parser.parse_args()
    if given.command == "count":
        print(json.dumps(count(), indent=1))
    else:
        print(json.dumps(write(given.folder) if given.command == "write" else sample(given)), flush=True)


if __name__ == "__main__":
    main()

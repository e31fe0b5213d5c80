"""What a run at the full size costs inside ComfyUI: random weights in the published layout, real nodes, real memory.

    python scripts/measure_full_size.py count                         # bytes by shapes alone: nothing is computed
    python scripts/measure_full_size.py estimate                      # what a GPU could do at best, by shapes alone
    python scripts/measure_full_size.py write DIR                     # 3.8 GB of random base and adapter, bf16
    python scripts/measure_full_size.py sample DIR --comfyui PATH     # 448x256, 16 frames, 2 steps with guidance
    python scripts/measure_full_size.py sample DIR --comfyui PATH --size 128x128 --frames 4 --store fp8_e4m3fn
    python scripts/measure_full_size.py modes DIR --comfyui PATH      # each memory mode, 4 frames, beside the plain run

Each prints JSON; ``modes`` also a table. ``sample`` measures this process's resident memory (Linux only), with
everything loaded and at most while sampling, beside ComfyUI's own estimate of what it has to free before. Seconds are
of the CPU, so that other load on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

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
SIZES = ((448, 256, 16), (576, 320, 24), (1024, 576, 24))
STORES = ("bf16", "fp16", "fp32", "fp8_e4m3fn", "fp8_e5m2")
GIB = 2**30
#: Memory modes, each a process of its own. The first is what the others are compared with.
MODES: dict[str, tuple[str, ...]] = {
    "plain (`--cpu`)": (),
    "every layer left in slow memory": ("--room", "0"),
    "half of the weights left in slow memory": ("--room", "0.5"),
    "a third pushed out, then everything": ("--push-out",),
    "weights in fp8_e4m3fn": ("--store", "fp8_e4m3fn"),
}


def alive(width: int, height: int, frames: int, adapter: bool, gpu: bool) -> int:
    """Bytes of the tensors made in a pass that are alive at once: fp16, both branches of guidance, fused attention.

    gpu: as the networks work there, on tensors without values or device; else as on a CPU, in smaller pieces.
    """
    with nullcontext() if gpu else FakeTensorMode(), torch.no_grad():
        step = guided_step(width, height, frames, adapter, gpu)
        with Meter() as meter:
            step()
    return meter.peak


def guided_step(
    width: int, height: int, frames: int, adapter: bool, gpu: bool, branches: int = 2
) -> Callable[[], torch.Tensor]:
    """One or both branches of a step on tensors without values; what is done once per run is done."""
    device: dict[str, Any] = dict(device="meta" if gpu else "cpu")
    size: dict[str, Any] = dict(attention=fused_attention, dtype=torch.float16, **device)
    config, rows = UNet3DConfig.modelscope(), branches * frames
    unet = UNet3D(config, **size)
    device["dtype"] = torch.float16
    x, text = torch.empty(rows, 4, height // 8, width // 8, **device), torch.empty(branches, 77, 1024, **device)
    times = torch.empty(branches, **device)
    if not adapter:
        return lambda: unet(x, times, text, frames)
    made: Any = Adapter(AdapterConfig(unet=config), **size)
    keys_values = made.ref.keys_values(subject_features(unet, x[:branches], times, text))
    reference = Reference(made.ref, keys_values, torch.empty(rows, 1, height, width, **device))
    options = {"patches": reference_patches(), "dv2_reference": reference}
    hint = torch.empty(rows, config.model_channels, height // 8, width // 8, **device)
    return lambda: unet(x, times, text, frames, made.motion.controlnet(x, hint, times, text), options)


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


class Roofline(TorchDispatchMode):
    """Seconds that the kernels of a computation need at least: each its FLOPs or its bytes, whichever takes longer.

    flops, bytes: of a second. Every operation that makes or changes a tensor is one kernel, which reads its arguments
    and writes its results once, as PyTorch runs them uncompiled.
    """

    FREE = ("_unsafe_view", "empty", "empty_like", "empty_strided", "detach", "lift_fresh")

    def __init__(self, flops: float, bytes: float) -> None:
        super().__init__()
        self.speeds, self.seconds = (flops, bytes), 0.0
        self.flops = self.attention = self.bytes = self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        view = any(made.alias_info is not None and not made.alias_info.is_write for made in func._schema.returns)
        if view or func.overloadpacket.__name__ in self.FREE:
            return out
        flops = 0
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        leaves = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        moved = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
        self.flops, self.bytes, self.kernels = self.flops + flops, self.bytes + moved, self.kernels + 1
        self.attention += flops if "attention" in func.overloadpacket.__name__ else 0
        self.seconds += max(flops / self.speeds[0], moved / self.speeds[1])
        return out


def estimate() -> dict[str, Any]:
    """448x256, 16 frames, fp16 on an H100 (989 TFLOP/s, 3.35 TB/s) of which kernels are assumed to reach 60 %."""
    found: dict[str, Any] = {}
    # Passes of a step: (with adapter, branches of guidance). By default the adapter is in the conditional one only.
    passes = {"base": [(False, 2)], "with adapter": [(False, 1), (True, 1)], "with adapter in both": [(True, 2)]}
    with torch.no_grad():
        for name, parts in passes.items():
            steps = [guided_step(448, 256, 16, adapter, True, branches) for adapter, branches in parts]
            with Roofline(0.6 * 989e12, 0.6 * 3.35e12) as line:
                for step in steps:
                    step()
            found[name] = {
                "TFLOP": round(line.flops / 1e12, 2), "of attention": round(line.attention / 1e12, 2),
                "GB": round(line.bytes / 1e9, 1), "kernels": line.kernels,
                "ms per step": round(1e3 * line.seconds, 1), "s for 50 steps": round(50 * line.seconds, 2),
            }  # fmt: skip
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


def leave_out(room: float) -> None:
    """Let the core load no more than this share of each model, as where the fast memory is too small for more.

    On a CPU both memories are one; what runs is the core's path for layers that are brought as they are used.
    """
    loaded = sys.modules["comfy.model_management"].LoadedModel
    load = loaded.model_load

    def little(self: Any, lowvram_model_memory: int = 0, **kwargs: Any) -> Any:
        return load(self, max(1, int(room * self.model.model_size())), **kwargs)

    loaded.model_load = little


def push_out(everything: bool) -> None:
    """Unload a third of each model, or all of them, as for another model that needs the memory."""
    management = sys.modules["comfy.model_management"]
    if everything:
        management.unload_all_models()
        return
    for loaded in management.current_loaded_models:
        loaded.model.partially_unload(loaded.model.offload_device, loaded.model.model_size() // 3)


def left_out() -> int:
    """Bytes of weights that are not in the fast memory."""
    return sum(m.model_offloaded_memory() for m in sys.modules["comfy.model_management"].current_loaded_models)


def difference(samples: torch.Tensor, first: torch.Tensor) -> float:
    return float((samples - first).abs().max() / first.abs().max())


def sample(given: argparse.Namespace) -> dict[str, Any]:
    width, height = (int(side) for side in given.size.split("x"))
    engine = Comfy(given.comfyui, given.folder)
    utilities: Any = sys.modules["comfy.utils"]
    utilities.set_progress_bar_enabled(True)  # one line per step; a step takes minutes
    args = sys.modules["comfy.cli_args"].args
    setattr(args, f"{given.store}_unet", True)
    if given.room is not None:
        leave_out(given.room)
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
            ends = {
                "first": [width // 16, height // 4, width // 3, height * 3 // 4],
                "last": [width // 2, height // 8, width * 7 // 8, height // 2],
            }
            boxes = dict(boxes=json.dumps(ends), length=given.frames, width=width, height=height)
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
        inputs = dict(seed=1, steps=given.steps, cfg=9.0, denoise=1.0, latent_image=latent)

        def run() -> torch.Tensor:
            return call("DV2Sampler", model=model, positive=positive, negative=negative, **inputs)[0]["samples"]

        new_peak()
        clock, marks = time.monotonic(), [time.process_time()]
        utilities.set_progress_bar_global_hook(lambda *_, **__: marks.append(time.process_time()))
        samples = run()
        utilities.set_progress_bar_global_hook(None)
        peak, wall, outside = resident("VmHWM"), time.monotonic() - clock, left_out()
        again = []
        for everything in (False, True) if given.push_out else ():
            push_out(everything)
            outside = max(outside, left_out())
            again.append(difference(run(), samples))
    found = {
        "size": given.size, "frames": given.frames, "steps": given.steps, "store": given.store,
        "adapter": not given.without_adapter, "threads": torch.get_num_threads(),
        "finite": bool(torch.isfinite(samples).all()), "load CPU s": round(loading, 1),
        "GiB before": round(start / GIB, 2), "GiB loaded": round(loaded / GIB, 2), "GiB peak": round(peak / GIB, 2),
        "GiB activations": round((peak - loaded) / GIB, 3), "GiB estimate": round(estimate / GIB, 3),
        "GiB left out": round(outside / GIB, 2), "s per step": round(wall / given.steps, 1),
        # The first has what is done once per run: the subject's passes, the motion encoder.
        "CPU s of each step": [round(end - begun, 1) for begun, end in pairwise(marks)],
    }  # fmt: skip
    path = given.folder / f"samples-{given.size}-{given.frames}-{given.steps}-{given.without_adapter}.safetensors"
    if path.is_file():  # of the first run of this size, by whatever mode
        again.append(difference(samples, load_file(path)["samples"]))
    else:
        save_file({"samples": samples.clone()}, path)
    if again:
        found["relative difference"] = max(again)
    return found


def modes(given: argparse.Namespace) -> dict[str, Any]:
    """Every mode in a process of its own, so that each has its own peak."""
    for old in given.folder.glob(f"samples-{given.size}-{given.frames}-{given.steps}-*.safetensors"):
        old.unlink()
    size = ("--size", given.size, "--frames", str(given.frames), "--steps", str(given.steps))
    command = (sys.executable, __file__, "sample", str(given.folder), "--comfyui", str(given.comfyui), *size)
    found: dict[str, Any] = {}
    print("| mode | left in slow memory | resident at most | frames differ by |\n| --- | --- | --- | --- |", flush=True)
    for name, options in MODES.items():
        lines = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        found[name] = row = json.loads(lines[-1])
        outside, differs = row["GiB left out"], row.get("relative difference")
        differs = "" if differs is None else f"{differs:.0e}" if differs else "nothing"
        print(f"| {name} | {outside:.2f} GiB | {row['GiB peak']:.2f} GiB | {differs} |", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("count", help="bytes of activations by shapes alone")
    commands.add_parser("estimate", help="time of a step on a GPU by shapes alone")
    writing = commands.add_parser("write", help="random base and adapter of the full size")
    writing.add_argument("folder", type=Path)
    one = commands.add_parser("sample", help="one run through the nodes")
    all_modes = commands.add_parser("modes", help="every memory mode against the plain run")
    for parsed, frames, steps in ((one, 16, 2), (all_modes, 4, 1)):
        parsed.add_argument("folder", type=Path)
        parsed.add_argument("--comfyui", type=Path, required=True, help="folder of an unpacked ComfyUI")
        parsed.add_argument("--size", default="448x256", help="pixels, multiples of 8")
        parsed.add_argument("--frames", type=int, default=frames)
        parsed.add_argument("--steps", type=int, default=steps)
    one.add_argument("--store", choices=STORES, default="bf16", help="dtype of the base's weights in memory")
    one.add_argument("--without-adapter", action="store_true")
    one.add_argument("--room", type=float, help="share of each model that the fast memory has room for, 0..1")
    one.add_argument("--push-out", action="store_true", help="run again after a part and after all was unloaded")
    given = parser.parse_args()
    if given.command in ("count", "estimate"):
        print(json.dumps(count() if given.command == "count" else estimate(), indent=1))
    else:
        command = {"write": lambda: write(given.folder), "sample": lambda: sample(given), "modes": lambda: modes(given)}
        print(json.dumps(command[given.command]()), flush=True)


if __name__ == "__main__":
    main()

"""What a training step of the adapter costs at the full size: parameters, FLOPs, bytes; and one real step.

    python scripts/measure_training.py count                             # nothing is computed: shapes alone
    python scripts/measure_training.py step --size 448x256 --recompute   # random weights, on this machine

``count`` prints JSON, from which ``scripts/scale_tables.py`` makes the tables of docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dv2_core.diffusion import reweighted_loss
from dv2_core.model import (
    Adapter,
    AdapterConfig,
    Reference,
    UNet3D,
    UNet3DConfig,
    blended_mask,
    plain_attention,
    reference_patches,
    sdpa_attention,
    subject_features,
)
from dv2_core.model.encoder import recompute_blocks

TEXT_TOKENS = 77
PAPER = AdapterConfig()
VARIANTS = {
    "paper": PAPER,
    "ref_sharing = width": replace(PAPER, ref_sharing="width"),
    "motion_encoder = none": replace(PAPER, motion_encoder="none"),
    "motion_control = t2i_adapter": replace(PAPER, motion_control="t2i_adapter"),
    "ref_sharing = width, motion_control = t2i_adapter": replace(
        PAPER, ref_sharing="width", motion_control="t2i_adapter"
    ),
}


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors made inside that are still alive, and the most there have been at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class Step:
    """One training step's networks and inputs: frozen base, adapter that learns, random numbers for a batch."""

    def __init__(self, config: AdapterConfig, batch: int = 1, attention: Callable[..., Tensor] = sdpa_attention,
                 recompute: bool = False, adapter_dtype: torch.dtype = torch.bfloat16) -> None:  # fmt: skip
        self.config, self.batch = config, batch
        frames, width, height, _ = config.trained
        self.unet = UNet3D(config.unet, attention=attention, dtype=torch.bfloat16).requires_grad_(False)
        self.adapter = Adapter(config, attention=attention, dtype=adapter_dtype)
        if recompute:
            recompute_blocks(self.unet)
            if hasattr(self.motion.controlnet, "input_blocks"):
                recompute_blocks(self.motion.controlnet)
        latent = (config.unet.in_channels, height // 8, width // 8)
        factory: Any = {"dtype": torch.bfloat16}
        self.latents, self.noise = (torch.rand(batch * frames, *latent, **factory) for _ in range(2))
        self.subject = torch.rand(batch, *latent, **factory)
        self.context = torch.rand(batch, TEXT_TOKENS, config.unet.context_dim, **factory)
        self.masks = torch.ones(batch * frames, 1, height, width, **factory)
        self.timesteps = torch.zeros(batch)
        self.frames = frames

    @property
    def ref(self) -> Any:
        return self.adapter.ref

    @property
    def motion(self) -> Any:
        return self.adapter.motion

    def base(self) -> Tensor:
        return self.unet(self.latents, self.timesteps, self.context, self.frames)

    @torch.no_grad()
    def features(self) -> Any:
        return subject_features(self.unet, self.subject, self.timesteps, self.context)

    def hint(self) -> Tensor:
        return self.motion.encode(self.masks, self.frames)

    def control(self, hint: Tensor) -> Any:
        return self.motion.controlnet(self.latents, hint, self.timesteps, self.context)

    def loss(self) -> Tensor:
        reference = Reference(self.ref, self.ref.keys_values(self.features()), blended_mask(self.masks, 0.75))
        options = {"patches": reference_patches(), "dv2_reference": reference}
        prediction = self.unet(self.latents, self.timesteps, self.context, self.frames,
                               control=self.control(self.hint()), transformer_options=options)  # fmt: skip
        return reweighted_loss(prediction, self.noise, self.masks, self.config.lambda_l)[0]


def flops(run: Callable[[], Any]) -> tuple[int, Any]:
    """FLOPs (a multiply-add is two) of matrix products and convolutions, and what ``run`` returns."""
    with FlopCounterMode(display=False) as counter:
        out = run()
    return counter.get_total_flops(), out


def count_flops(config: AdapterConfig) -> dict[str, int]:
    """Of one clip. Attention is written as two matrix products, so that its backward is counted in full."""
    with FakeTensorMode():
        step = Step(config, attention=plain_attention)
        found = {}
        found["base"], _ = flops(torch.no_grad()(step.base))
        found["subject"], features = flops(step.features)
        found["keys_values"], _ = flops(lambda: step.ref.keys_values(features))
        found["encoder"], hint = flops(step.hint)
        found["control"], residuals = flops(lambda: step.control(hint))
        rows = [residual for name in residuals for residual in residuals[name]]
        found["motion_backward"], _ = flops(torch.stack([residual.float().sum() for residual in rows]).sum().backward)
        found["forward"], loss = flops(step.loss)
        found["backward"], _ = flops(loss.backward)
        loss = Step(config, attention=plain_attention, recompute=True).loss()
        found["backward_recomputing"], _ = flops(loss.backward)
    found["reference"] = found["forward"] - sum(found[k] for k in ("base", "subject", "encoder", "control"))
    return found


def count_bytes(config: AdapterConfig, recompute: bool) -> dict[str, int]:
    """Peak bytes of a step beyond the weights: what one clip takes, and what does not grow with the batch.

    Activations and gradients are bf16, attention is fused; from the peaks at one and at two clips.
    """
    peaks = []
    with FakeTensorMode():
        for batch in (1, 2):
            step = Step(config, batch, recompute=recompute)
            with LiveBytes() as live:
                step.loss().backward()
            peaks.append(live.peak)
            del step
    return {"clip": peaks[1] - peaks[0], "fixed": 2 * peaks[0] - peaks[1]}


def parameters(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def count(config: AdapterConfig) -> dict[str, Any]:
    adapter = Adapter(config, device="meta")
    motion: Any = adapter.motion
    return {
        "trained": config.trained,
        "parameters": {
            "base": parameters(UNet3D(config.unet, device="meta")),
            "ref": parameters(adapter.ref),
            "encoder": parameters(motion.encoder),
            "control": parameters(motion.controlnet),
        },
        "flops": count_flops(config),
        "bytes": count_bytes(config, recompute=False),
        "bytes_recomputing": count_bytes(config, recompute=True),
    }


def real_step(config: AdapterConfig, recompute: bool) -> dict[str, Any]:
    """One step with random weights on the CPU: bf16 base, fp32 adapter under bf16 autocast, AdamW."""

    def resident() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # ru_maxrss is in KiB

    step = Step(config, attention=plain_attention, recompute=recompute, adapter_dtype=torch.float32)
    optimizer = torch.optim.AdamW(step.adapter.parameters(), lr=1e-4, weight_decay=0.0, foreach=False)
    found: dict[str, Any] = {"trained": config.trained, "recompute": recompute, "threads": torch.get_num_threads()}
    found["gib_weights"], start = resident(), time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = step.loss()
    found["gib_forward"], found["s_forward"] = resident(), time.perf_counter() - start
    loss.backward()
    found["gib_backward"], found["s_backward"] = resident(), time.perf_counter() - start - found["s_forward"]
    optimizer.step()
    found["gib_optimizer"], found["s_step"] = resident(), time.perf_counter() - start
    return found | {"loss": loss.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("count", help="parameters, FLOPs and bytes of every variant, as JSON")
    one = commands.add_parser("step", help="one real training step on this machine's CPU")
    one.add_argument("--size", default="448x256", help="pixels, multiples of 64")
    one.add_argument("--frames", type=int, default=16)
    one.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    given = parser.parse_args()
    if given.command == "count":
        print(json.dumps({name: count(config) for name, config in VARIANTS.items()}, indent=1))
    else:
        width, height = (int(side) for side in given.size.split("x"))
        config = replace(PAPER, unet=UNet3DConfig.modelscope(), trained=(given.frames, width, height, 8))
        print(json.dumps(real_step(config, given.recompute)))


if __name__ == "__main__":
    main()

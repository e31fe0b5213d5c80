"""What training data costs a CPU core and a disk: cached clips, decoding, the autoencoder's work.

    python scripts/measure_data.py > docs/scale/data.json

Seconds are the process's own on one thread, so that other load on the machine does not count.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dv2_core.boxes import BoxTrack, rasterize
from dv2_core.train.cache import Cache
from dv2_core.train.config import TrainConfig
from dv2_core.train.video import Fit

DATA: Any = TrainConfig.load("modelscope-448x256").data
LATENT = (4, DATA.height // 8, DATA.width // 8)
SOURCE, SOURCE_FPS, SOURCE_SECONDS = (596, 336), 25, 4  # a stock video in its preview size


def cpu_seconds(run: Callable[[], Any], times: int) -> float:
    """Of one call."""
    run()
    start = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - start) / times


def cached_clip(folder: Path) -> tuple[float, int]:
    """(CPU seconds of reading a clip's three entries and drawing its masks, bytes of the entries)."""
    cache = Cache(folder)
    entries = {
        "latents": torch.randn(DATA.num_frames, *LATENT).half(),
        "subjects": torch.randn(DATA.variants, *LATENT).half(),
        "context": torch.randn(77, 1024).half(),
    }
    for name, tensor in entries.items():
        cache.put({"name": name}, {name: tensor})
    track = BoxTrack(tuple((0.1 + n / 100, 0.2, 0.4 + n / 100, 0.8) for n in range(DATA.num_frames)))

    def load() -> None:
        for name in entries:
            if cache.get({"name": name}) is None:
                raise RuntimeError(f"{name} was not read back")
        rasterize(track, DATA.width, DATA.height)

    return cpu_seconds(load, 50), sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))


def write_video(path: Path) -> None:
    """Smooth textures that move, with some grain."""
    width, height = SOURCE
    small = torch.rand(1, 3, height // 8, width // 8 + SOURCE_FPS * SOURCE_SECONDS)
    big = torch.nn.functional.interpolate(small, scale_factor=8, mode="bicubic")[0].clamp(0, 1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=SOURCE_FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(SOURCE_FPS * SOURCE_SECONDS):
            view = big[:, :height, 3 * n : 3 * n + width] + 0.02 * torch.randn(3, height, width)
            pixels = (view.clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def decoding(path: Path) -> tuple[float, float]:
    """CPU seconds of decoding one frame, and of making a decoded frame a training frame."""
    write_video(path)

    def decode() -> list[Any]:
        with av.open(str(path)) as container:
            return list(container.decode(video=0))

    pixels: np.ndarray = decode()[0].to_ndarray(format="rgb24")
    fit = Fit(SOURCE, (DATA.width, DATA.height))
    return cpu_seconds(decode, 3) / (SOURCE_FPS * SOURCE_SECONDS), cpu_seconds(lambda: fit.frame(pixels), 20)


def autoencoder_flops() -> int:
    """Of encoding one frame with Stable Diffusion's autoencoder."""
    with FakeTensorMode():
        down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
        shape: Any = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
        vae = AutoencoderKL(down_block_types=down, up_block_types=up, **shape)  # type: ignore[arg-type]
        vae.set_attn_processor(AttnProcessor())  # two matrix products: a CPU's fused attention is not counted
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            vae.encode(torch.zeros(1, 3, DATA.height, DATA.width))
    return counter.get_total_flops()


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        seconds, size = cached_clip(Path(folder))
        frame, fitted = decoding(Path(folder) / "a.mp4")
    print(json.dumps({
        "cached clip, CPU seconds": seconds, "cached clip, bytes": size, "decoded frame, CPU seconds": frame,
        "fitted frame, CPU seconds": fitted, "autoencoder, FLOPs": autoencoder_flops(),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()

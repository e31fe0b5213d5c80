"""A laboratory for the nodes: tiny random weights in ComfyUI's folders, direct node calls, and whole prompts.

Every parameter of the weights is random, the zero initialisations of the adapter included: an adapter that adds nothing
would satisfy most contracts.
"""

import copy
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.oracles.public import noise, randomise, relative_error

FRAMES = 8
BOXES = '{"first": [4, 30, 28, 60], "last": [36, 6, 60, 36]}'
WORDS = ["a", "ball", "blue", "dog", "left", "moving", "red", "right"]
EXTRAS = (
    "nodes_context_windows", "nodes_easycache", "nodes_freelunch", "nodes_pag", "nodes_torch_compile",
)  # fmt: skip

BASE, TEXT, VAE, ADAPTER = "tiny-base.safetensors", "tiny-text.safetensors", "tiny-vae.safetensors", "tiny.safetensors"
LITE_ADAPTER = "tiny-lite.safetensors"
PLACED_ADAPTER = "tiny-placed.safetensors"
SD_BASE, SD_TEXT, SD_VAE, SD_ADAPTER = (
    "sd-base.safetensors", "sd-text.safetensors", "sd-vae.safetensors", "sd.safetensors",
)  # fmt: skip


class Graph(dict[str, dict[str, Any]]):
    """A prompt in API form. ``add`` returns the node's id; an input is connected by ``(id, slot)``."""

    def add(self, class_type: str, **inputs: Any) -> str:
        node_id = str(len(self) + 1)
        inputs = {k: list(v) if isinstance(v, tuple) else v for k, v in inputs.items()}
        self[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id


class Lab:
    """One engine with the tiny weights.

    ``load`` and ``call`` run nodes directly, as the executor does but without a prompt; ``run`` runs a whole prompt.
    """

    noise = staticmethod(noise)
    relative_error = staticmethod(relative_error)
    randomise = staticmethod(randomise)
    FRAMES, BOXES, WORDS = FRAMES, BOXES, WORDS
    BASE, TEXT, VAE, ADAPTER = BASE, TEXT, VAE, ADAPTER
    LITE_ADAPTER, PLACED_ADAPTER = LITE_ADAPTER, PLACED_ADAPTER
    SD_BASE, SD_TEXT, SD_VAE, SD_ADAPTER = SD_BASE, SD_TEXT, SD_VAE, SD_ADAPTER

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.classes = engine.nodes.NODE_CLASS_MAPPINGS
        self.root = self.classes["DV2Sampler"].__module__.rsplit(".nodes.", 1)[0]
        self.models = Path(engine.base_dir) / "models"

    def pack(self, name: str) -> Any:
        """A module of the pack as ComfyUI loaded it; the same module under its plain name holds other classes."""
        return importlib.import_module(f"{self.root}.{name}")

    def call(self, class_type: str, **inputs: Any) -> tuple[Any, ...]:
        cls = self.classes[class_type]
        with torch.inference_mode():
            if hasattr(cls, "define_schema"):
                return tuple(cls.execute(**inputs).result)
            return tuple(getattr(cls(), cls.FUNCTION)(**inputs))

    def load(self, prediction: str = "auto", unet: str = BASE, text: str = TEXT, vae: str = VAE) -> SimpleNamespace:
        """model, clip, vae, and the conditionings of two prompts."""
        model, clip, vae_ = self.call(
            "DV2LoadBase", unet_name=unet, clip_name=text, vae_name=vae, prediction=prediction
        )
        (positive,) = self.call("CLIPTextEncode", clip=clip, text="a red ball moving right")
        (negative,) = self.call("CLIPTextEncode", clip=clip, text="")
        return SimpleNamespace(model=model, clip=clip, vae=vae_, positive=positive, negative=negative)

    def adapter(self, name: str = ADAPTER) -> Any:
        return self.call("DV2LoadAdapter", adapter_name=name)[0]

    def masks(self, length: int = FRAMES, width: int = 64, height: int = 64, boxes: str = BOXES) -> torch.Tensor:
        return self.call("DV2BoxesToMask", boxes=boxes, length=length, width=width, height=height)[0]

    def subject(self, seed: int = 7, width: int = 64, height: int = 64) -> torch.Tensor:
        """IMAGE [1, height, width, 3]: smooth colours."""
        small = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear").movedim(1, -1)

    def latent(self, frames: int = FRAMES, width: int = 64, height: int = 64) -> dict[str, torch.Tensor]:
        return self.call("EmptyLatentImage", width=width, height=height, batch_size=frames)[0]

    def refer(self, lab_model: Any, adapter: Any, vae: Any, **changes: Any) -> Any:
        """The MODEL with reference attention; ``changes`` are inputs of the node."""
        inputs: dict[str, Any] = dict(
            subject=self.subject(), strength=1.0, lambda_m=-1.0, start=0.0, end=1.0, masks=self.masks()
        )
        return self.call("DV2ReferenceAttention", model=lab_model, adapter=adapter, vae=vae, **{**inputs, **changes})[0]

    def move(self, positive: Any, negative: Any, adapter: Any, **changes: Any) -> tuple[Any, Any]:
        """The conditionings with motion control; ``changes`` are inputs of the node."""
        inputs: dict[str, Any] = dict(masks=self.masks(), strength=1.0, start=0.0, end=1.0)
        out = self.call(
            "DV2MotionEncoder", positive=positive, negative=negative, adapter=adapter, **{**inputs, **changes}
        )
        return out[0], out[1]

    def sample(self, model: Any, positive: Any, negative: Any, latent: Any = None, **changes: Any) -> torch.Tensor:
        """Latent of DV2Sampler, two steps at CFG 2."""
        inputs: dict[str, Any] = dict(seed=1, steps=2, cfg=2.0, denoise=1.0)
        inputs["latent_image"] = self.latent() if latent is None else latent
        out = self.call("DV2Sampler", model=model, positive=positive, negative=negative, **{**inputs, **changes})
        return out[0]["samples"]

    @staticmethod
    @contextmanager
    def flags(**changes: Any) -> Iterator[None]:
        """Command line flags of ComfyUI, as if it had been started with them."""
        from comfy.cli_args import args

        with pytest.MonkeyPatch.context() as patch:
            for name, value in changes.items():
                patch.setattr(args, name, value)
            yield

    def whole(self, base: SimpleNamespace, adapter: Any, **changes: Any) -> torch.Tensor:
        """Both halves of the method; ``changes`` as for :meth:`sample`."""
        model = self.refer(base.model, adapter, base.vae)
        return self.sample(model, *self.move(base.positive, base.negative, adapter), **changes)

    def graph(self, **changes: Any) -> tuple[Graph, dict[str, str]]:
        """The main job as a prompt up to the sampler, and the ids of its nodes by name.

        changes: ``node_input=value``, for example ``boxes_length=4`` or ``adapter_adapter_name="x"``.
        """
        graph, ids = Graph(), {}
        size = dict(width=64, height=64)

        def add(name: str, class_type: str, **inputs: Any) -> None:
            own = {k.removeprefix(name + "_"): v for k, v in changes.items() if k.startswith(name + "_")}
            ids[name] = graph.add(class_type, **{**inputs, **own})

        add("base", "DV2LoadBase", unet_name=BASE, clip_name=TEXT, vae_name=VAE, prediction="auto")
        add("adapter", "DV2LoadAdapter", adapter_name=ADAPTER)
        add("subject", "DV2LoadSubject", image="subject.png", **size)
        add("boxes", "DV2BoxesToMask", boxes=BOXES, length=FRAMES, **size)
        add("positive", "CLIPTextEncode", clip=(ids["base"], 1), text="a red ball moving right")
        add("negative", "CLIPTextEncode", clip=(ids["base"], 1), text="")
        add("reference", "DV2ReferenceAttention", model=(ids["base"], 0), adapter=(ids["adapter"], 0),
            vae=(ids["base"], 2), subject=(ids["subject"], 0), strength=1.0, lambda_m=-1.0, start=0.0, end=1.0,
            masks=(ids["boxes"], 0))  # fmt: skip
        add("motion", "DV2MotionEncoder", positive=(ids["positive"], 0), negative=(ids["negative"], 0),
            adapter=(ids["adapter"], 0), masks=(ids["boxes"], 0), strength=1.0, start=0.0, end=1.0)  # fmt: skip
        add("latent", "EmptyLatentImage", **size, batch_size=FRAMES)
        add("sampler", "DV2Sampler", model=(ids["reference"], 0), positive=(ids["motion"], 0),
            negative=(ids["motion"], 1), latent_image=(ids["latent"], 0), seed=1, steps=2, cfg=2.0,
            denoise=1.0)  # fmt: skip
        add("save", "SaveLatent", samples=(ids["sampler"], 0), filename_prefix="engine")
        return graph, ids

    def run(self, graph: Graph) -> dict[str, Any]:
        return self.engine.run(copy.deepcopy(graph))

    @staticmethod
    def metadata(path: Path) -> dict[str, str]:
        with safe_open(path, "pt") as file:
            return file.metadata()

    @staticmethod
    def output(result: dict[str, Any], node_id: str, slot: int = 0) -> Any:
        return result["cache"][node_id].outputs[slot][0]

    @staticmethod
    def complaint(result: dict[str, Any]) -> tuple[str, str]:
        """(id of the node that refused, its sentence), from validation or from execution."""
        assert not result["ok"]
        for node_id, found in (result.get("node_errors") or {}).items():
            error = found["errors"][0]
            return node_id, f"{error['message']}: {error['details']}"
        for event, data in result["messages"]:
            if event == "execution_error":
                return data["node_id"], data["exception_message"]
        raise AssertionError(f"no complaint in {result}")

    def relabel(self, source: str, name: str, config: dict[str, Any] | None = None,
                keep: Callable[[str], bool] = lambda key: True) -> str:  # fmt: skip
        """Another adapter file made of ``source``: changed settings, fewer tensors."""
        folder = self.models / "dreamvideo2"
        metadata = self.metadata(folder / source)
        settings = {**json.loads(metadata["dreamvideo2.config"]), **(config or {})}
        metadata = {**metadata, "dreamvideo2.config": json.dumps(settings)}
        weights = {k: v for k, v in load_file(folder / source).items() if keep(k)}
        save_file(weights, folder / name, metadata=metadata)
        return name


def write_base(lab: Lab, name: str, config: Any, latent: str, prediction: str, prefix: str = "", seed: int = 0) -> Any:
    """A base file as the trainer writes it, fp16; returns its UNet3D with the very weights of the file."""
    core = lab.pack("dv2_core.model")
    unet = randomise(core.UNet3D(config), seed)
    weights = {k: v.half() for k, v in unet.state_dict().items()}
    metadata = {
        "format": "dreamvideo2-base",
        "dreamvideo2.unet": json.dumps(config.to_dict()),
        "dreamvideo2.prediction": prediction,
        "dreamvideo2.latent": latent,
    }
    save_file({prefix + k: v for k, v in weights.items()}, lab.models / "diffusion_models" / name, metadata=metadata)
    unet.load_state_dict(weights)
    return unet, weights


def write_text(lab: Lab, name: str, width: int, layers: int, heads: int) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    shape: dict[str, Any] = {
        "vocab_size": len(WORDS) + 4, "hidden_size": width, "intermediate_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "max_position_embeddings": 16, "hidden_act": "quick_gelu", "eos_token_id": 2,
    }  # fmt: skip
    model = randomise(CLIPTextModel(CLIPTextConfig(**shape, pad_token_id=0, bos_token_id=1)))
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}
    metadata = {
        "format": "dreamvideo2-text", "dreamvideo2.text": json.dumps(shape), "dreamvideo2.words": json.dumps(WORDS),
    }  # fmt: skip
    save_file(weights, lab.models / "text_encoders" / name, metadata=metadata)


def write_vae(lab: Lab, name: str, channels: int) -> None:
    """A TAESD-shaped autoencoder whose encoder is a patch PCA; the PCA itself goes next to it."""
    latent = lab.pack("dv2_core.world.latent")
    pca = latent.PatchPCA.fit([torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(3))], channels)
    vae = randomise(latent.MiniVAE(channels))
    with torch.no_grad():
        vae.vae_scale.fill_(latent.VAE_SCALE)
        vae.vae_shift.zero_()
    latent.write_pca_encoder(vae, pca)
    vae.save(lab.models / "vae" / name)
    pca.save(lab.models / f"{name}.pca")


def write_adapter(lab: Lab, name: str, config: Any, base: dict[str, torch.Tensor]) -> None:
    core = lab.pack("dv2_core.model")
    adapter = randomise(core.Adapter(config), seed=5)
    core.save_adapter(
        adapter, lab.models / "dreamvideo2" / name, torch.float16, core.fingerprint(base), {"base_model.name": "tiny"}
    )


def write_files(lab: Lab) -> None:
    core = lab.pack("dv2_core.model")
    for folder in ("diffusion_models", "text_encoders", "vae", "dreamvideo2", "loras"):
        (lab.models / folder).mkdir(exist_ok=True)
    tiny = core.UNet3DConfig(24, 24, 32, (1, 2), 1, (0, 1), 16, 2, 32)
    settings: dict[str, Any] = dict(encoder_channels=(8, 8, 16, 16), encoder_heads=2, steps=3, cfg=2.5)
    settings |= dict(ref_uncond="same", motion_uncond="same")  # the harder case: both branches in one batch
    _, weights = write_base(lab, BASE, tiny, "dv2-mini", "v")
    write_text(lab, TEXT, 32, 2, 2)
    write_vae(lab, VAE, 24)
    write_adapter(lab, ADAPTER, core.AdapterConfig(unet=tiny, prediction="v", **settings), weights)
    lite = dict(ref_head_dim=8, ref_sharing="width", motion_encoder="none", motion_control="t2i_adapter")
    write_adapter(lab, LITE_ADAPTER, core.AdapterConfig(unet=tiny, prediction="v", **settings, **lite), weights)
    placed = dict(ref_head_dim=8, ref_features="hidden", ref_position="box")
    write_adapter(lab, PLACED_ADAPTER, core.AdapterConfig(unet=tiny, prediction="v", **settings, **placed), weights)
    # The structure of the full size (four levels, two blocks each, an SD latent, OpenCLIP's width), but narrow.
    narrow = core.UNet3DConfig(model_channels=32, head_dim=8)
    _, weights = write_base(lab, SD_BASE, narrow, "", "eps")
    write_text(lab, SD_TEXT, 1024, 1, 16)
    write_vae(lab, SD_VAE, 4)
    write_adapter(lab, SD_ADAPTER, core.AdapterConfig(unet=narrow, **settings), weights)
    picture = (torch.nn.functional.pad(noise(1, 40, 40), (12, 12, 12, 12)).abs() > 0).float()[0]
    write_picture(Path(lab.engine.base_dir) / "input" / "subject.png", picture)


def write_picture(path: Path, alpha: torch.Tensor) -> None:
    """An RGBA picture of smooth colours with this alpha [H, W]."""
    from PIL import Image

    small = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    colours = torch.nn.functional.interpolate(small, size=tuple(alpha.shape), mode="bilinear")[0]
    pixels = torch.cat([colours, alpha[None]]).movedim(0, -1)
    Image.fromarray((pixels * 255).round().byte().numpy(), "RGBA").save(path)


_written = False


@pytest.fixture
def lab(comfy: Callable[[], Any]) -> Lab:
    """A fresh executor on the process's one ComfyUI; the weights are written once."""
    global _written
    made = Lab(comfy())
    if not _written:
        core = made.engine._core
        for name in EXTRAS:
            core._load(Path(made.engine.nodes.__file__).parent / "comfy_extras" / f"{name}.py",
                       module_parent="comfy_extras")  # fmt: skip
        write_files(made)
        _written = True
    return made


@pytest.fixture
def ready(lab: Lab) -> SimpleNamespace:
    """Base, adapter, and the MODEL and CONDITIONING with both halves of the method."""
    base, adapter = lab.load(), lab.adapter()
    positive, negative = lab.move(base.positive, base.negative, adapter)
    model = lab.refer(base.model, adapter, base.vae)
    return SimpleNamespace(base=base, adapter=adapter, model=model, positive=positive, negative=negative)

"""The workflows behind the rows of the table, as prompts in ComfyUI's API form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .engine import Prompt

SHOWN = "preview"  # id of the node whose pictures are the result
REAL_FILE, SUBJECT_FILE = "real_{:04d}.tiff", "subject_{:04d}.png"


class Case(Protocol):
    """One video to make: a pair of the mini-world, or a video of a benchmark. Sizes are pixels and frames."""

    @property
    def number(self) -> int: ...

    @property
    def caption(self) -> str: ...

    @property
    def boxes_text(self) -> str:
        """What the text input of Boxes to Mask takes."""
        ...

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def length(self) -> int: ...

    def write_inputs(self, folder: Path) -> None:
        """Put its subject, SUBJECT_FILE, into ComfyUI's input folder."""
        ...


@dataclass(frozen=True)
class Condition:
    """What of a case the model is given beside the caption."""

    name: str
    boxes: bool = False
    subject: bool = False

    @property
    def folder(self) -> str:
        """Name of the folder of its clips."""
        return self.name.replace(" + ", "-").replace(" ", "-")


CONDITIONS = (
    Condition("text only"),
    Condition("boxes only", boxes=True),
    Condition("subject only", subject=True),
    Condition("boxes + subject", boxes=True, subject=True),
)
MAIN = CONDITIONS[-1]  # the whole method


@dataclass(frozen=True)
class Setup:
    """Model files by their names in ComfyUI's lists, and the sampler's settings (0: the adapter's own)."""

    unet: str = "dv2-mini-base.safetensors"
    clip: str = "dv2-mini-text.safetensors"
    vae: str = "dv2-mini-vae.safetensors"
    adapter: str = "dv2-mini-adapter.safetensors"
    steps: int = 0
    cfg: float = 0.0
    lambda_m: float = -1.0
    seed: int = 0  # sampling seed


def noise_seed(setup: Setup, case: Case) -> int:
    """The seed of a case's noise: the same in every row, another for every case and sampling seed."""
    return setup.seed * 1_000_000 + case.number


def generate(case: Case, condition: Condition, setup: Setup) -> Prompt:
    """Subject + boxes + caption -> frames, with the parts that the condition leaves out not in the graph.

    The case's subject must lie in the input folder (`write_inputs`)."""
    size = {"width": case.width, "height": case.height}
    prompt: Prompt = {
        "base": node("DV2LoadBase", unet_name=setup.unet, clip_name=setup.clip, vae_name=setup.vae, prediction="auto"),
        "adapter": node("DV2LoadAdapter", adapter_name=setup.adapter),
        "positive": node("CLIPTextEncode", clip=["base", 1], text=case.caption),
        "negative": node("CLIPTextEncode", clip=["base", 1], text=""),
        "empty": node("EmptyLatentImage", **size, batch_size=case.length),
    }
    model, positive, negative, masks = ["base", 0], ["positive", 0], ["negative", 0], {}
    if condition.boxes:
        prompt["boxes"] = node("DV2BoxesToMask", boxes=case.boxes_text, length=case.length, **size)
        masks = {"masks": ["boxes", 0]}
        prompt["motion"] = node(
            "DV2MotionEncoder",
            positive=positive,
            negative=negative,
            adapter=["adapter", 0],
            **masks,
            strength=1.0,
            start=0.0,
            end=1.0,
        )
        positive, negative = ["motion", 0], ["motion", 1]
    if condition.subject:
        prompt["subject"] = node("DV2LoadSubject", image=SUBJECT_FILE.format(case.number), **size)
        prompt["reference"] = node(
            "DV2ReferenceAttention",
            model=model,
            adapter=["adapter", 0],
            vae=["base", 2],
            subject=["subject", 0],
            **masks,
            strength=1.0,
            lambda_m=setup.lambda_m,
            start=0.0,
            end=1.0,
        )
        model = ["reference", 0]
    prompt["sampler"] = node(
        "DV2Sampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=["empty", 0],
        seed=noise_seed(setup, case),
        steps=setup.steps,
        cfg=setup.cfg,
        denoise=1.0,
        adapter=["adapter", 0],
    )
    prompt["decoded"] = node("VAEDecode", samples=["sampler", 0], vae=["base", 2])
    prompt[SHOWN] = node("PreviewImage", images=["decoded", 0])
    return prompt


def reconstruct(case: Case, setup: Setup) -> Prompt:
    """A pair's real clip through the stock VAE nodes; it must lie in the input folder (`write_inputs`)."""
    return {
        "vae": node("VAELoader", vae_name=setup.vae),
        "real": node("LoadImage", image=REAL_FILE.format(case.number)),
        "encoded": node("VAEEncode", pixels=["real", 0], vae=["vae", 0]),
        "decoded": node("VAEDecode", samples=["encoded", 0], vae=["vae", 0]),
        SHOWN: node("PreviewImage", images=["decoded", 0]),
    }


def node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}

"""Detection and segmentation models from local folders: which files they are, and loading them without a download.

A model is a folder as `transformers` writes it (config.json, model.safetensors, ...). Nothing here touches the network
and nothing reads pickles or code: a folder that lacks something gets a sentence with the names of the files, the folder
and the place where they are published.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

#: Called with (done, total) after each step of a longer computation; whatever it raises ends the computation.
Progress = Callable[[int, int], None]

#: Gives a network its device while it is needed; ComfyUI's model management is one, `stay` leaves it where it is.
Place = Callable[[nn.Module], AbstractContextManager[Any]]


@dataclass(frozen=True)
class ModelKind:
    """One family of published weights.

    name: as people know it. folder: its folder below ComfyUI's `models`. model_type: what its config.json says.
    files: the files of one model; of alternatives in one entry, one is enough. published: repositories to get it from.
    attention: the implementation to use, whatever config.json asks for (it could ask for a download).
    """

    name: str
    folder: str
    model_type: str
    files: tuple[tuple[str, ...], ...]
    published: tuple[str, ...]
    attention: str


CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")

GROUNDING_DINO = ModelKind(
    "Grounding DINO",
    "grounding-dino",
    "grounding-dino",
    (
        (CONFIG,),
        WEIGHTS,
        ("preprocessor_config.json", "processor_config.json"),
        ("tokenizer_config.json",),
        ("tokenizer.json", "vocab.txt"),
    ),
    (
        "https://huggingface.co/IDEA-Research/grounding-dino-tiny",
        "https://huggingface.co/IDEA-Research/grounding-dino-base",
    ),
    "eager",
)

SAM2 = ModelKind(
    "SAM 2",
    "sam2",
    "sam2_video",
    ((CONFIG,), WEIGHTS),
    (
        "https://huggingface.co/facebook/sam2.1-hiera-tiny",
        "https://huggingface.co/facebook/sam2.1-hiera-large",
    ),
    "sdpa",
)


def how_to_get(kind: ModelKind, folder: Path | str) -> str:
    """The sentence that says which files to put where. folder: of the models of this kind, or of one model."""
    names = ", ".join(" or ".join(alternatives) for alternatives in kind.files)
    return (
        f"Get {names} from {' or '.join(kind.published)} and put them into a folder of their own inside {folder}. "
        "Nothing is downloaded by itself."
    )


def is_model_folder(kind: ModelKind, folder: Path) -> bool:
    """Whether the folder's config.json names this kind of model; other files may still be missing."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") == kind.model_type


def check_folder(kind: ModelKind, folder: Path) -> None:
    """Raises ValueError unless the folder holds this kind of model with all its files."""
    if not folder.is_dir():
        raise ValueError(f"There is no {kind.name} model in {folder}. {how_to_get(kind, folder.parent)}")
    missing = [" or ".join(names) for names in kind.files if not any((folder / name).is_file() for name in names)]
    if missing:
        raise ValueError(
            f"The {kind.name} model in {folder} lacks {', '.join(missing)}. Get what is missing from where the model "
            f"came from, for example {kind.published[0]}, and put it into that folder."
        )
    if not is_model_folder(kind, folder):
        raise ValueError(
            f"{folder / CONFIG} is no description of a {kind.name} model (its model_type should be "
            f"{kind.model_type!r}). {how_to_get(kind, folder.parent)}"
        )


def load_network(kind: ModelKind, folder: Path, config_class: str, model_class: str, **options: Any) -> nn.Module:
    """The network of a model folder, in float32 on the CPU, for inference.

    config_class, model_class: names in `transformers`. options: of the model class. Raises ValueError for a folder that
    lacks files, weights that are damaged or of another model, and a `transformers` that does not know the model.
    """
    check_folder(kind, folder)
    tf = library(kind, model_class)
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        # One folder serves two classes of networks; only the names of their types differ.
        config = getattr(tf, config_class).from_dict({k: v for k, v in settings.items() if k != "model_type"})
        config.use_pretrained_backbone = False  # would fetch the backbone's own weights from the network
        config.disable_custom_kernels = True  # would compile CUDA code on older versions
        network, found = getattr(tf, model_class).from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            # A kind may also allow a torch file, which the library reads as weights only.
            use_safetensors=any((folder / name).is_file() for name in WEIGHTS),
            attn_implementation=kind.attention,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # the library raises exceptions of many kinds; the cause is kept in the sentence
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"The {kind.name} model in {folder} cannot be loaded ({reason}). Its files are damaged or do not belong "
            f"together. {how_to_get(kind, folder.parent)}"
        ) from error
    absent = sorted(found["missing_keys"])
    if absent:
        raise ValueError(
            f"The weights in {folder} lack {len(absent)} tensors of {kind.name}, for example {absent[0]}: they are of "
            f"another model. {how_to_get(kind, folder.parent)}"
        )
    return network.float().eval().requires_grad_(False)


def library(kind: ModelKind, needed: str) -> Any:
    """The `transformers` module, or a sentence when it is missing or lacks the class `needed`."""
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"{kind.name} needs the package transformers; install it with pip.") from error
    if not hasattr(transformers, needed):
        raise ValueError(
            f"transformers {transformers.__version__} has no {needed}; {kind.name} needs transformers 4.56 or newer. "
            "Update it with pip."
        )
    return transformers


def stay(network: nn.Module) -> AbstractContextManager[Any]:
    """The `Place` that leaves a network on the device where it is."""
    return nullcontext()


class LocalModel:
    """A network with its place and the precision of its arithmetic.

    dtype: float32, or bfloat16 for half precision. The weights stay float32 and the arithmetic is autocast: Grounding
        DINO does not run with all of its weights in half precision, and boxes need more digits than bfloat16 has.
        Not float16, since the memory of SAM 2's video model is always bfloat16.
    """

    def __init__(self, network: Any, dtype: torch.dtype = torch.float32, place: Place = stay):
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"The precision is {dtype}; use torch.float32, or torch.bfloat16 for half precision.")
        self.network, self.dtype, self.place = network, dtype, place

    @contextmanager
    def running(self) -> Iterator[torch.device]:
        """With the network in its place: the device to put inputs on. No gradients are kept."""
        with self.place(self.network), torch.no_grad():
            device = next(self.network.parameters()).device
            # Not merely switched off: some devices have no autocast at all.
            with nullcontext() if self.dtype == torch.float32 else torch.autocast(device.type, self.dtype):
                yield device


def check_frames(frames: torch.Tensor, name: str = "video") -> torch.Tensor:
    """frames [F, H, W, 3 or more] in 0..1 -> its first three channels. Raises ValueError for anything else."""
    if frames.ndim != 4 or frames.shape[-1] < 3 or 0 in frames.shape:
        raise ValueError(
            f"The {name} has shape {list(frames.shape)}; give RGB pictures [frames, height, width, 3] with pixels."
        )
    frames = frames[..., :3]
    # One number decides both: NaN and infinity make it false too. Frame by frame, not to hold a second video.
    if not all(bool(((frame > -0.1) & (frame < 1.1)).all()) for frame in frames):
        raise ValueError(f"The {name} has values outside 0..1 or NaN; give RGB pictures scaled to 0..1.")
    return frames

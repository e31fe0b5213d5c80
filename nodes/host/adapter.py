"""The adapter inside ComfyUI: two modules, each with its own model patcher so that the core offloads them."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import torch

from ...dv2_core.model import Adapter, AdapterConfig, read_adapter
from . import compat


@dataclasses.dataclass
class HostAdapter:
    """A loaded adapter. ``ref`` and ``motion`` are model patchers, or None if the file lacks the part."""

    name: str
    config: AdapterConfig
    metadata: dict[str, str]
    ref: Any
    motion: Any

    def __deepcopy__(self, memo: Any) -> HostAdapter:
        return self  # MODEL clones deep-copy their options; the weights must not be copied with them

    def trained_boxes(self) -> dict[str, Any]:
        """What the boxes of its training were like, as ``dv2_core.boxes.preflight.check_plan`` takes it.

        The file says it in its metadata: ``training.boxes``, JSON {"fastest": canvas heights per frame, "area":
        [smallest, largest share of the canvas]}. What an older or foreign file does not say is left out.
        """
        trained: dict[str, Any] = {"trained_frames": self.config.trained[0]} if self.config.trained else {}
        try:
            told = json.loads(self.metadata.get("training.boxes", "{}"))
            fastest, (least, most) = told["fastest"], told["area"]
            trained |= {"fastest": float(fastest), "area": (float(least), float(most))}
        except (ValueError, KeyError, TypeError):
            pass
        return trained

    def check_base(self, model: Any) -> None:
        """Refuse a BaseModel of other sizes with a sentence; warn if its weights are not those it was trained on."""
        config = model.model_config.unet_config.get("dreamvideo2")
        if config is None:
            raise ValueError(
                f"The MODEL is not a ModelScope text-to-video base, so the adapter {self.name} cannot act on it. "
                "Load the base with the node 'Load Video Base (DreamVideo-2)'."
            )
        if config != self.config.unet:
            ours, theirs = self.config.unet.to_dict(), config.to_dict()
            sizes = ", ".join(f"{k} {ours[k]} and not {theirs[k]}" for k in ours if ours[k] != theirs[k])
            raise ValueError(
                f"The adapter {self.name} was trained for a UNet of other sizes than this base: {sizes}. Choose the "
                "adapter that belongs to the base."
            )
        expected = self.metadata.get("base_model.fingerprint")
        if expected and expected != model.fingerprint:
            logging.warning(
                "The adapter %s was trained on %s, and this base, %s, has other weights (fingerprint %s..., expected "
                "%s...). It will run; results may be worse.",
                self.name, self.metadata.get("base_model.name", "another base"), model.base_name,
                model.fingerprint[:8], expected[:8],
            )  # fmt: skip


def load_adapter(path: Path) -> HostAdapter:
    """Read an adapter file; ValueError with a sentence for any other file."""
    config, metadata, weights = read_adapter(path)
    # Checked with plain layers: those of newer cores have no weights until they are loaded.
    weights = Adapter(config, device="meta").own_state_dict(weights)
    dtype = next(iter(weights.values())).dtype
    with torch.device("meta"):
        adapter = Adapter(config, comfy.ops.manual_cast, compat.attention(), dtype)
    adapter.to_empty(device=comfy.model_management.unet_offload_device())
    adapter.load_state_dict(weights)
    adapter.eval().requires_grad_(False)

    def patcher(part: Any) -> Any:
        return None if part is None else compat.model_patcher(part)

    return HostAdapter(path.name, config, metadata, patcher(adapter.ref), patcher(adapter.motion))


def check_masks(masks: torch.Tensor) -> None:
    """Refuse what is not one mask per frame, [F, H, W]."""
    if masks.ndim != 3 or 0 in masks.shape:
        raise ValueError(
            f"The box masks have shape {list(masks.shape)}, but there must be one per frame, [frames, height, width]. "
            "Connect the masks of 'Boxes to Mask', or a mask video."
        )


def window_rows(masks: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """The masks [F, ...] of the frames in the current context window, or all of them."""
    window = options.get("context_window")
    if window is None:
        return masks
    if max(window.index_list) >= len(masks):
        raise ValueError(
            f"A context window holds frame {max(window.index_list)}, but there are {len(masks)} box masks. Give the "
            "converter the length of the whole video."
        )
    return masks[torch.as_tensor(window.index_list, device=masks.device)]


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype a BaseModel computes in (its weights may be stored in another)."""
    return model.manual_cast_dtype or model.get_dtype()

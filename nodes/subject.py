"""The subject image: from a file or from a graph, cut out and placed on a blank canvas of the video's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image, ImageOps

from ..dv2_core.subject import extract_subject, place_on_canvas
from .host import compat, files
from .inputs import file_stamp, size_inputs
from .types import CATEGORY


def subject_files() -> list[str]:
    """The pack's example subjects, so that a template runs on a fresh installation, then the user's input images."""
    folder = Path(folder_paths.get_input_directory())
    names = [p.name for p in folder.iterdir() if p.is_file()]
    examples = sorted(f"{files.EXAMPLES}/{p.name}" for p in (folder / files.EXAMPLES).glob("*.png"))
    return examples + sorted(folder_paths.filter_files_content_types(names, ["image"]))


def subject_path(name: str) -> Path:
    """Path of a listed picture. Raises ValueError, a sentence, for any other."""
    path = files.chosen_path(name)
    if path is None:
        raise ValueError(f"The subject image {name!r} is not in ComfyUI's input folder. Upload it or choose another.")
    return path


def on_canvas(
    image: torch.Tensor, mask: torch.Tensor | None, width: int, height: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """image [H, W, 3 or 4], mask [H, W] or None -> IMAGE [1, height, width, 3], MASK [1, height, width]."""
    canvas, alpha = place_on_canvas(*extract_subject(image, mask), width, height)
    return canvas[None], alpha[None]


class LoadSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2LoadSubject",
            display_name="Load Subject (DreamVideo-2)",
            category=CATEGORY,
            description="Loads one subject picture, cuts the subject out (transparency, or a plain background) and "
            "places it on a blank white canvas of the video's size.",
            search_aliases=["subject image", "reference image"],
            has_intermediate_output=True,
            inputs=[
                io.Combo.Input("image", options=subject_files(), upload=io.UploadType.image,
                               image_folder=io.FolderType.input,
                               tooltip="One subject. Best with transparency; a plain background works too."),
                *size_inputs(),
            ],
            outputs=[io.Image.Output(display_name="subject"), io.Mask.Output(display_name="subject_mask")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, image: str | None = None) -> bool:
        if image is not None:
            subject_path(image)
        return True

    @classmethod
    def fingerprint_inputs(cls, image: str | None = None, width: int | None = None, height: int | None = None) -> str:
        return file_stamp(image)

    @classmethod
    def execute(cls, image: str, width: int, height: int) -> io.NodeOutput:
        path = subject_path(image)
        try:
            with Image.open(path) as opened:
                pixels = np.asarray(ImageOps.exif_transpose(opened).convert("RGBA"), np.float32) / 255.0
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{image!r} cannot be read as a picture ({error}). Use a PNG, JPEG or WebP.") from error
        canvas, alpha = on_canvas(torch.from_numpy(pixels), None, width, height)
        return io.NodeOutput(canvas, alpha, ui=ui.PreviewImage(canvas, cls=cls))


class PrepareSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2PrepareSubject",
            display_name="Prepare Subject (DreamVideo-2)",
            category=CATEGORY,
            description="The same for a picture from another node, with the mask of any segmentation node.",
            search_aliases=["subject image", "cut out subject"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("image", tooltip="One picture of the subject; of a batch, the first."),
                *size_inputs(),
                io.Mask.Input("mask", optional=True,
                              tooltip="1 on the subject. Without it the background must be plain."),
                io.Boolean.Input("invert_mask", default=False,
                                 tooltip="On for the MASK of Load Image, which is 1 where it is transparent."),
            ],
            outputs=[io.Image.Output(display_name="subject"), io.Mask.Output(display_name="subject_mask")],
        )  # fmt: skip

    @classmethod
    def execute(cls, image: torch.Tensor, width: int, height: int, invert_mask: bool,
                mask: torch.Tensor | None = None) -> io.NodeOutput:  # fmt: skip
        if 0 in image.shape:
            raise ValueError(f"The subject image has shape {list(image.shape)}, that is, no pixels. Connect a picture.")
        first = None
        if mask is not None:
            first = mask[0] if mask.ndim == 3 else mask
            first = 1.0 - first if invert_mask else first
        canvas, alpha = on_canvas(image[0], first, width, height)
        return io.NodeOutput(canvas, alpha, ui=ui.PreviewImage(canvas, cls=cls))


NODES: list[Any] = [LoadSubject, PrepareSubject]

"""Finding and cutting out subjects with local detection and segmentation models (Grounding DINO, SAM 2)."""

from .compose import boxes_from_video, feather, locate, overlay, subject_mask
from .detector import Detection, Detector
from .folder import GROUNDING_DINO, SAM2, ModelKind, check_folder, how_to_get, is_model_folder
from .prompt import Prompt, parse_point, parse_prompt
from .sam2 import Segmenter, VideoSegmenter

__all__ = [
    "GROUNDING_DINO",
    "SAM2",
    "Detection",
    "Detector",
    "ModelKind",
    "Prompt",
    "Segmenter",
    "VideoSegmenter",
    "boxes_from_video",
    "check_folder",
    "feather",
    "how_to_get",
    "is_model_folder",
    "locate",
    "overlay",
    "parse_point",
    "parse_prompt",
    "subject_mask",
]

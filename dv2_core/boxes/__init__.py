"""The box sequence: its value, its sources, its text and socket formats, and its pixels."""

from .formats import from_bounding_boxes, parse_boxes, to_bounding_boxes
from .interpolate import from_first_and_last, from_first_and_trajectory, from_keyframes
from .keyframe_track import Keyframe, KeyframeTrack
from .keyframes import KeyframePlan
from .linking import from_detections
from .masks import from_masks
from .plan import BoxPlan
from .preflight import Preflight, check_plan
from .raster import draw_boxes, rasterize
from .repair import check_smoothing, fill_gaps, smooth
from .track import Box, BoxTrack, clip, cut

__all__ = [
    "Box",
    "BoxPlan",
    "BoxTrack",
    "Keyframe",
    "KeyframePlan",
    "KeyframeTrack",
    "Preflight",
    "check_plan",
    "check_smoothing",
    "clip",
    "cut",
    "draw_boxes",
    "fill_gaps",
    "from_bounding_boxes",
    "from_detections",
    "from_first_and_last",
    "from_first_and_trajectory",
    "from_keyframes",
    "from_masks",
    "parse_boxes",
    "rasterize",
    "smooth",
    "to_bounding_boxes",
]

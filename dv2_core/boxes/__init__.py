"""The box sequence: its value, its sources, its text and socket formats, and its pixels."""

from .interpolate import from_first_and_last, from_first_and_trajectory, from_keyframes, from_masks
from .keyframe_track import Keyframe, KeyframeTrack
from .keyframes import KeyframePlan
from .parse import from_bounding_boxes, parse_boxes, to_bounding_boxes
from .plan import BoxPlan
from .raster import draw_boxes, rasterize
from .track import Box, BoxTrack, clip, cut

__all__ = [
    "Box",
    "BoxPlan",
    "BoxTrack",
    "Keyframe",
    "KeyframePlan",
    "KeyframeTrack",
    "clip",
    "cut",
    "draw_boxes",
    "from_bounding_boxes",
    "from_first_and_last",
    "from_first_and_trajectory",
    "from_keyframes",
    "from_masks",
    "parse_boxes",
    "rasterize",
    "to_bounding_boxes",
]

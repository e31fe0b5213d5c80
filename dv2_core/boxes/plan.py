"""Several box tracks on one canvas: what a video's boxes are, whichever source or format they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .track import BoxTrack, check_canvas, is_number, show

#: Frames per second that video files can state; it keeps a frame count or a bitrate from passing as one.
FPS_RANGE = (0.01, 1000.0)


@dataclass(frozen=True)
class BoxPlan:
    """The boxes of every subject of one video. Immutable, comparable, hashable.

    tracks: at least one BoxTrack, all of one length, with different, non-empty ids.
    width, height: the canvas in pixels, for the formats that are in pixels; the tracks are fractions of it.
    fps: frames per second, in FPS_RANGE.

    Raises ValueError, a sentence naming the values and the fix, for anything else.
    """

    tracks: tuple[BoxTrack, ...]
    width: int
    height: int
    fps: float = 8.0

    def __post_init__(self) -> None:
        tracks = self.tracks
        if not isinstance(tracks, Sequence) or not all(isinstance(track, BoxTrack) for track in tracks):
            raise ValueError(f"The tracks of the box plan are {show(tracks)}; give a list of BoxTrack values.")
        if not tracks:
            raise ValueError("The box plan has no tracks; give at least one subject's boxes.")
        check_ids([track.obj_id for track in tracks])
        for track in tracks:
            if track.length != tracks[0].length:
                raise ValueError(
                    f"Track {show(tracks[0].obj_id)} has {tracks[0].length} frames and track {show(track.obj_id)} has "
                    f"{track.length}; resample one of them, so that all tracks have the same number of frames."
                )
        check_canvas(self.width, self.height)
        check_fps(self.fps)
        object.__setattr__(self, "tracks", tuple(tracks))
        object.__setattr__(self, "fps", float(self.fps))

    @property
    def length(self) -> int:
        """Number of frames of every track."""
        return self.tracks[0].length

    def track(self, obj_id: str = "") -> BoxTrack:
        """The track of that id; "" is the first. Raises ValueError, naming the ids there are, for any other."""
        if obj_id == "":
            return self.tracks[0]
        for track in self.tracks:
            if track.obj_id == obj_id:
                return track
        ids = ", ".join(show(track.obj_id) for track in self.tracks)
        raise ValueError(
            f"There is no track {show(obj_id)}; there are {ids}. Name one of these, or none for the first."
        )

    def resample(self, length: int) -> BoxPlan:
        """The same motion in `length` frames, as `BoxTrack.resample` does it; the frames per second stay."""
        return replace(self, tracks=tuple(track.resample(length) for track in self.tracks))


def check_ids(ids: Sequence[str]) -> None:
    """Raises ValueError unless every track id is a non-empty text and no two are the same."""
    seen: set[str] = set()
    for i, name in enumerate(ids):
        if not isinstance(name, str) or not name:
            raise ValueError(f'The id of track {i} is {show(name)}; give it a short text such as "{i}".')
        if name in seen:
            raise ValueError(f"Two tracks have the id {show(name)}; give every track an id of its own.")
        seen.add(name)


def check_fps(fps: float) -> None:
    """Raises ValueError unless `fps` is a number in FPS_RANGE."""
    low, high = FPS_RANGE
    if not is_number(fps) or not math.isfinite(fps) or not low <= fps <= high:
        raise ValueError(f"The frame rate is {show(fps)} fps; it must be a number from {low:g} to {high:g}.")

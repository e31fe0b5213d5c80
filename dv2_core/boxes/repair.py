"""Repairs of observed tracks: gaps that a detector or segmenter left, and its trembling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .track import ROUNDING, Box, BoxTrack, show

#: Frames that the median looks at; it drops slips of up to two frames in a row.
MEDIAN = 5


def fill_gaps(track: BoxTrack, longest: int) -> BoxTrack:
    """Shows the subject in every run of at most `longest` hidden frames between two visible ones.

    The boxes of such frames are interpolated already. Longer runs are taken for the subject being away, and stay
    hidden, as do the frames before it comes and after it has gone. Raises ValueError for a `longest` under 0.
    """
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 0:
        raise ValueError(f"The longest gap to fill is {show(longest)} frames; give a whole number, 0 or above.")
    visible, seen = list(track.visible), None
    for t, shown in enumerate(track.visible):
        if shown:
            if seen is not None and t - seen - 1 <= longest:
                visible[seen:t] = [True] * (t - seen)
            seen = t
    return replace(track, visible=tuple(visible))


def smooth(track: BoxTrack, window: int = 9) -> BoxTrack:
    """The track without slips and trembling, neither late nor smaller.

    A running median over MEDIAN frames, then a Savitzky-Golay filter (quadratic, `window` frames, fitted to the end
    frames at the ends), on the centre and on the logarithm of width and height. An edge that lies on the canvas' edge
    stays there, for the subject goes on behind it. A clip under five frames is returned as it is.

    window: odd, 5 to 99 frames; longer is calmer and cuts corners more. Shortened to the clip. 0: no smoothing.

    Why this filter (scripts/measure_smoothing.py: five motions of 49 frames, 2 % trembling edges, 5 % slips; lag of
    the centre in frames, over the clip and over its last three frames; trembling and size in % of the box's sides):

                                          lag  at end  trembling   size  mean IoU  worst frame
      as observed                         0.0     0.0       13.6   -1.5     0.907        0.530
      exponential mean 0.4                1.3     1.4        4.2   -1.8     0.716        0.576
      mean of 7                           0.0     0.5        2.8   -1.1     0.905        0.746
      Gaussian, sigma 2                   0.0     0.4        2.2   -1.1     0.908        0.754
      Savitzky-Golay 9 alone              0.0     0.0        3.0   -1.5     0.924        0.772
      median 5 + Gaussian, sigma 2        0.0     0.4        2.2   -0.2     0.915        0.764
      median 5 + Savitzky-Golay 9         0.0     0.0        2.2   -0.2     0.946        0.821    (this)
      the same on the four edges          0.0     0.0        2.3   -0.5     0.947        0.826

    Raises ValueError for another window.
    """
    check_smoothing(window)
    window = min(window, track.length - 1 + track.length % 2)
    if window < 5:
        return track
    from scipy.ndimage import median_filter
    from scipy.signal import savgol_filter

    raw = np.array(track.boxes)  # [F, 4]
    middles, sides = (raw[:, :2] + raw[:, 2:]) / 2, np.log(raw[:, 2:] - raw[:, :2])
    values = median_filter(np.concatenate([middles, sides], 1), size=(MEDIAN, 1), mode="nearest")
    values = np.asarray(savgol_filter(values, window, 2, axis=0, mode="interp"), np.float64)
    half = np.exp(values[:, 2:]) / 2
    calm = np.concatenate([values[:, :2] - half, values[:, :2] + half], 1).clip(0, 1)
    for border, touching in ((0.0, raw <= ROUNDING), (1.0, raw >= 1 - ROUNDING)):
        calm[median_filter(touching, size=(MEDIAN, 1), mode="nearest")] = border
    lost = (calm[:, 2:] - calm[:, :2] <= ROUNDING).any(1)  # nothing is left where wild boxes make the curve overshoot
    calm[lost] = raw[lost]
    boxes: list[Box] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in calm.tolist()]
    return replace(track, boxes=tuple(boxes))


def check_smoothing(window: int) -> None:
    """Raises ValueError unless `window` is one of `smooth`: 0, or odd from 5 to 99."""
    whole = isinstance(window, int) and not isinstance(window, bool)
    if not whole or (window != 0 and (window % 2 == 0 or not 5 <= window <= 99)):
        raise ValueError(f"The smoothing is {show(window)} frames; give an odd number from 5 to 99, or 0 for none.")

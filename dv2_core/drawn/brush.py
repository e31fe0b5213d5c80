"""A small shading brush: flat shapes drawn with PIL become soft, lit volumes with a clean alpha channel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

#: Side of the finished picture in pixels; all coordinates below are in these units.
SIZE = 256
#: Supersampling per axis.
SCALE = 4
#: Direction to the light (x, y), unit length: from the upper left.
LIGHT = (-0.5, -0.87)

Colour = tuple[int, int, int]
Point = tuple[float, float]
Pixels = NDArray[np.floating]
Mask = Image.Image  # mode L, SIZE * SCALE square


def at(points: str) -> list[Point]:
    """Points written as in an SVG: "x,y x,y ..."."""
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


def _blank() -> tuple[Mask, ImageDraw.ImageDraw]:
    mask = Image.new("L", (SIZE * SCALE, SIZE * SCALE))
    return mask, ImageDraw.Draw(mask)


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Mask:
    """Filled ellipse around (cx, cy), turned clockwise by `angle` degrees."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turns = [2 * math.pi * i / 120 for i in range(120)]
    return polygon(
        [
            (cx + rx * math.cos(a) * c - ry * math.sin(a) * s, cy + rx * math.cos(a) * s + ry * math.sin(a) * c)
            for a in turns
        ]
    )


def rounded(x1: float, y1: float, x2: float, y2: float, radius: float) -> Mask:
    """Filled rectangle with round corners."""
    mask, draw = _blank()
    draw.rounded_rectangle([v * SCALE for v in (x1, y1, x2, y2)], radius * SCALE, fill=255)
    return mask


def polygon(points: Sequence[Point]) -> Mask:
    """Filled polygon."""
    mask, draw = _blank()
    draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=255)
    return mask


def blob(points: Sequence[Point]) -> Mask:
    """Filled closed Catmull-Rom curve through the points."""
    return polygon(smooth([*points[-1:], *points, *points[:2]]))


def stroke(points: Sequence[Point], width: float) -> Mask:
    """A smooth line through the points with round ends."""
    mask, draw = _blank()
    path = smooth([points[0], *points, points[-1]])
    radius = width / 2
    for x, y in path:
        draw.ellipse([v * SCALE for v in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    draw.line([(x * SCALE, y * SCALE) for x, y in path], fill=255, width=round(width * SCALE))
    return mask


def smooth(points: Sequence[Point], steps: int = 16) -> list[Point]:
    """Catmull-Rom samples from points[1] to points[-2]; the outer two only give direction."""
    curve: list[Point] = []
    for i in range(1, len(points) - 2):
        p0, p1, p2, p3 = (np.array(p, dtype=float) for p in points[i - 1 : i + 3])
        for t in (j / steps for j in range(steps)):
            x, y = 0.5 * (
                2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
            )
            curve.append((float(x), float(y)))
    return [*curve, points[-2]]


def both(a: Mask, b: Mask) -> Mask:
    """Where both shapes are."""
    return ImageChops.multiply(a, b)


def either(*masks: Mask) -> Mask:
    """Where any of the shapes is."""
    joined = masks[0]
    for mask in masks[1:]:
        joined = ImageChops.lighter(joined, mask)
    return joined


def without(a: Mask, b: Mask) -> Mask:
    """The first shape where the second is not."""
    return ImageChops.subtract(a, b)


class Brush:
    """A picture under construction: premultiplied colour [S, S, 3] and alpha [S, S], 0..1, S = SIZE * SCALE."""

    def __init__(self) -> None:
        side = SIZE * SCALE
        self.rgb = np.zeros((side, side, 3), dtype=np.float32)
        self.alpha = np.zeros((side, side), dtype=np.float32)

    def paint(self, mask: Mask, colour: Colour, roundness: float = 14.0, cast: float = 0.0) -> None:
        """Adds a shape as a lit volume.

        roundness: how far, in pixels, the edge bends away; 0 is flat. cast: darkness 0..1 of the soft shadow that the
        shape throws onto what is already there.
        """
        area = self._area(mask, reach=16 if cast else 2)
        if area is None:
            return
        left, top, right, bottom = area
        part = mask.crop(area)
        cover = np.asarray(part, dtype=np.float32) / 255  # [h, w]
        window = (slice(top, bottom), slice(left, right))
        if cast:
            shadow = ImageChops.offset(part, 2 * SCALE, 4 * SCALE).filter(ImageFilter.GaussianBlur(4 * SCALE))
            self.rgb[window] *= 1 - cast * np.asarray(shadow, dtype=np.float32)[..., None] / 255
        shaded = np.broadcast_to(np.array(colour, dtype=np.float32) / 255, (*cover.shape, 3))
        if roundness:
            shaded = _shade(cover, shaded, roundness)
        self._over(window, shaded, cover)

    def glow(self, mask: Mask, colour: Colour, opacity: float, blur: float, within: Mask | None = None) -> None:
        """Adds a soft flat patch: highlights, cheeks, shadows; `within` keeps it on one shape."""
        area = self._area(mask, reach=3 * blur)
        if area is None:
            return
        left, top, right, bottom = area
        soft = mask.crop(area).filter(ImageFilter.GaussianBlur(blur * SCALE))
        soft = both(soft, within.crop(area)) if within else soft
        cover = np.asarray(soft, dtype=np.float32) / 255 * opacity
        shade = np.broadcast_to(np.array(colour, dtype=np.float32) / 255, (*cover.shape, 3))
        self._over((slice(top, bottom), slice(left, right)), shade, cover)

    def eye(self, x: float, y: float, radius: float, iris: Colour = (28, 24, 34)) -> None:
        """A round eye that looks a little to the right, with a glint."""
        self.paint(ellipse(x, y, radius, radius), (252, 252, 252), roundness=3, cast=0.25)
        self.paint(ellipse(x + radius * 0.12, y + radius * 0.08, radius * 0.62, radius * 0.66), iris, roundness=2)
        self.glow(ellipse(x - radius * 0.1, y - radius * 0.25, radius * 0.2, radius * 0.2), (255, 255, 255), 1.0, 0.3)

    def finish(self) -> Image.Image:
        """The picture, RGBA, SIZE x SIZE."""
        layers = np.concatenate([self.rgb, self.alpha[..., None]], axis=-1)  # [S, S, 4] premultiplied
        small = layers.reshape(SIZE, SCALE, SIZE, SCALE, 4).mean(axis=(1, 3))  # [256, 256, 4]
        small[..., :3] /= np.maximum(small[..., 3:], 1e-4)
        return Image.fromarray((small.clip(0, 1) * 255).round().astype(np.uint8), "RGBA")

    def _over(self, window: tuple[slice, slice], colour: Pixels, cover: Pixels) -> None:
        self.rgb[window] = colour * cover[..., None] + self.rgb[window] * (1 - cover[..., None])
        self.alpha[window] = cover + self.alpha[window] * (1 - cover)

    @staticmethod
    def _area(mask: Mask, reach: float) -> tuple[int, int, int, int] | None:
        """The mask's rectangle grown by `reach` pixels, or None for an empty mask."""
        bounds = mask.getbbox()
        if bounds is None:
            return None
        grow, side = round(reach * SCALE), SIZE * SCALE
        left, top, right, bottom = bounds
        return max(left - grow, 0), max(top - grow, 0), min(right + grow, side), min(bottom + grow, side)


def _shade(cover: Pixels, colour: Pixels, radius: float) -> Pixels:
    """Lights a shape as if its blurred mask were its height: bright towards LIGHT, darker and cooler away from it."""
    height, width = cover.shape
    # The light varies slowly, so it is worked out at the size of the finished picture.
    mask = Image.fromarray(cover).resize((max(width // SCALE, 2), max(height // SCALE, 2)), Image.Resampling.BOX)
    slope_y, slope_x = np.gradient(_blur(_blur(np.asarray(mask), radius).T, radius).T)
    facing = -(slope_x * LIGHT[0] + slope_y * LIGHT[1]) * radius * 1.5  # about -0.6 .. 0.6
    facing = np.asarray(Image.fromarray(facing).resize((width, height), Image.Resampling.BICUBIC))
    fall = np.linspace(0.10, -0.14, height, dtype=np.float32)[:, None]
    lit = (facing + fall)[..., None]
    shadow = colour * np.array([0.42, 0.34, 0.50], dtype=np.float32)
    bright = 1 - (1 - colour) * np.array([0.35, 0.42, 0.55], dtype=np.float32)
    up, down = lit.clip(0, 1), (-lit).clip(0, 1)
    return colour + (bright - colour) * up * 1.1 + (shadow - colour) * down * 1.1


def _blur(values: Pixels, radius: float) -> Pixels:
    """Nearly Gaussian blur of standard deviation `radius` along the rows: three box means, zero outside.

    In float, because the 8-bit steps of PIL's blur would show as contour lines in the slopes.
    """
    half = max(1, round(radius))  # a box of 2 half + 1 has a variance of half (half + 1) / 3
    width = 2 * half + 1
    values = np.pad(values, ((0, 0), (3 * half + 3, 3 * half)))
    for _ in range(3):
        total = values.cumsum(axis=1, dtype=np.float64)
        values = ((total[:, width:] - total[:, :-width]) / width).astype(np.float32)
    return values

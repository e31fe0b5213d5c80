"""Colours of the mini-world: HSV both ways, hue rotation, and the one word that names a picture's main colour."""

import numpy as np

# upper hue limit in degrees -> word; the circle closes with red again
HUE_WORDS = ((15, "red"), (42, "orange"), (68, "yellow"), (165, "green"), (198, "cyan"), (258, "blue"), (292, "purple"))
HUE_WORDS += ((342, "pink"), (360, "red"))
GREY_WORDS = ((0.25, "black"), (0.75, "gray"), (1.01, "white"))
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "black", "gray", "white")


def rgb_to_hsv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[3, ...] in 0..1 -> hue in 0..6 (sixths of the circle), saturation and value in 0..1, each [...]."""
    red, green, blue = rgb
    value = rgb.max(0)
    chroma = value - rgb.min(0)
    safe = np.maximum(chroma, 1e-6)
    hue = np.where(
        value == red,
        (green - blue) / safe % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return hue, chroma / np.maximum(value, 1e-6), value


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The inverse of `rgb_to_hsv`: -> [3, ...] in 0..1. Hue may lie outside 0..6; it is taken modulo the circle."""
    offset = np.array([5, 3, 1], hue.dtype).reshape(3, *[1] * hue.ndim)
    k = (offset + hue) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)


def rotate_hue(rgba: np.ndarray, turn: float) -> np.ndarray:
    """Turn the hue of [4, h, w] in 0..1 by `turn` of the full circle; greys and alpha stay."""
    hue, saturation, value = rgb_to_hsv(rgba[:3])
    return np.concatenate([hsv_to_rgb(hue + np.float32(6 * turn), saturation, value), rgba[3:]])


def colour_word(rgba: np.ndarray) -> str:
    """The word for the colour that covers most of [4, h, w] in 0..1: one of `COLOURS`.

    Pixels vote for a hue with alpha x chroma; a picture with little chroma is black, gray or white by its mean
    value."""
    hue, saturation, value = rgb_to_hsv(rgba[:3])
    alpha = rgba[3]
    chroma = saturation * value * alpha
    if chroma.sum() < 0.2 * alpha.sum():
        mean = float((value * alpha).sum() / max(float(alpha.sum()), 1e-6))
        return next(word for limit, word in GREY_WORDS if mean < limit)
    votes = np.zeros(len(HUE_WORDS))
    limits = np.array([limit for limit, _ in HUE_WORDS]) / 60
    np.add.at(votes, np.searchsorted(limits, np.minimum(hue, 5.999), side="right").ravel(), chroma.ravel())
    totals: dict[str, float] = {}
    for (_, word), vote in zip(HUE_WORDS, votes, strict=True):
        totals[word] = totals.get(word, 0.0) + float(vote)
    return max(totals, key=lambda word: totals[word])

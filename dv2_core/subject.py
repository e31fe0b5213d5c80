"""The subject image as the paper wants it: segmented, on a blank background (arXiv 2410.13830, "subject image").

Two steps: `extract_subject` finds the cut-out (alpha channel, given mask, or a plain background keyed away),
`place_on_canvas` puts it centred onto the blank canvas that the reference branch of the UNet sees.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: A pixel belongs to the subject for cropping when its alpha is above this.
FOREGROUND = 40 / 255

#: Longest side of the subject on its canvas, in shorter sides of the canvas.
SUBJECT_SIDE = 0.82

#: Shorter than this many pixels on its longest side, a cut-out carries no appearance to copy.
SMALLEST = 4

#: How far (largest channel difference) a border pixel may be from the background colour and still count as it.
PLAIN_TOLERANCE = 0.10

#: The part of the border that must be background; the rest may be a subject that runs out of the picture.
PLAIN_SHARE = 0.70


def extract_subject(image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The subject's colour and coverage: (rgb [H, W, 3], alpha [H, W]), both 0..1.

    image: [H, W, 3 or 4], 0..1. mask: [H, W], 0..1, 1 on the subject.
    Alpha comes from the first of these that there is: an alpha channel that is not opaque everywhere, the mask, the
    plain background (its colour is estimated from the picture's border; what differs from it is the subject).

    Raises ValueError for other shapes, NaN or values outside 0..1, a one-pixel image, a mask of another size, no
    foreground, and a border that is not plain when there is neither alpha nor mask.
    """
    if image.ndim != 3 or image.shape[-1] not in (3, 4):
        raise ValueError(
            f"The subject image has shape {list(image.shape)}; give one RGB or RGBA picture [height, width, 3 or 4]."
        )
    height, width, channels = image.shape
    if min(height, width) < 2:
        raise ValueError(
            f"The subject image is {width}x{height} pixels, too small to cut a subject out of; use a larger one."
        )
    image = _check_values(image, "subject image")
    rgb = image[..., :3]
    if mask is not None:
        if tuple(mask.shape) != (height, width):
            raise ValueError(
                f"The subject mask has shape {list(mask.shape)} [height, width] but the image is {height} high and "
                f"{width} wide; connect a mask of the same picture, or none."
            )
        mask = _check_values(mask, "subject mask").to(rgb)

    if channels == 4 and bool((image[..., 3] < 0.5).any()):
        alpha, source = image[..., 3], "alpha channel"
    elif mask is not None:
        alpha, source = mask, "mask"
    else:
        rgb, alpha = _key_plain_background(rgb)
        source = "part that differs from the plain background"
    _foreground(alpha, source)
    return rgb, alpha


def place_on_canvas(
    rgb: Tensor, alpha: Tensor, width: int, height: int, fill: float = SUBJECT_SIDE, background: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The subject centred on a blank canvas: (canvas [height, width, 3], alpha [height, width]), both 0..1.

    rgb: [H, W, 3]; alpha: [H, W]; 0..1. The picture is cropped to alpha > 40/255 and resized (antialiased, colours
    weighted by alpha, so that hidden colours never bleed in) until its longest side is `fill` of the canvas's shorter
    side. background: grey level of the canvas, 1 = white as in the paper.

    Raises ValueError for shapes that do not belong together, NaN, a canvas without pixels, a fill outside 0..1, and
    no or too small a foreground.
    """
    if rgb.ndim != 3 or rgb.shape[-1] != 3 or alpha.shape != rgb.shape[:2]:
        raise ValueError(
            f"The subject has colours of shape {list(rgb.shape)} and alpha of shape {list(alpha.shape)}; give "
            "[height, width, 3] and [height, width]."
        )
    if width < 1 or height < 1:
        raise ValueError(f"The subject canvas is {width}x{height}; it must be at least 1x1 pixel.")
    if not 0 < fill <= 1 or not 0 <= background <= 1:
        raise ValueError(f"fill is {fill} and background {background}; fill must be above 0, and neither above 1.")
    rgb, alpha = _check_values(rgb, "subject image"), _check_values(alpha, "subject mask").to(rgb)

    top, bottom, left, right = _foreground(alpha, "alpha")
    rgb, alpha = rgb[top:bottom, left:right], alpha[top:bottom, left:right, None]
    scale = max(1, round(fill * min(width, height))) / max(alpha.shape[:2])
    size = [max(1, round(side * scale)) for side in alpha.shape[:2]]
    layers = torch.cat([rgb * alpha, alpha], dim=-1).permute(2, 0, 1)[None]  # [1, 4, h, w], premultiplied
    layers = F.interpolate(layers.float(), size=size, mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    alpha = layers[..., 3:].clamp(0, 1)  # [h', w', 1]
    # Bicubic overshoots at edges, in colour and coverage alike; their ratio does not.
    colour = (layers[..., :3] / layers[..., 3:].clamp(min=1e-4)).clamp(0, 1)  # [h', w', 3]

    canvas = torch.full((height, width, 3), background, device=rgb.device)
    canvas_alpha = torch.zeros(height, width, device=rgb.device)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    canvas[window] = colour * alpha + (1 - alpha) * background
    canvas_alpha[window] = alpha[..., 0]
    return canvas, canvas_alpha


def _check_values(values: Tensor, name: str) -> Tensor:
    """float32 in 0..1. A resize may leave values a little outside, which are cut; more is another scale."""
    values = values.float()
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"The {name} contains NaN or infinite values; give values from 0 to 1.")
    low, high = values.min().item(), values.max().item()
    if low < -0.1 or high > 1.1:
        raise ValueError(f"The {name} has values from {low:.4g} to {high:.4g}; scale them to 0 .. 1.")
    return values.clamp(0, 1)


def _foreground(alpha: Tensor, source: str) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of alpha > FOREGROUND, ends exclusive."""
    inside = alpha > FOREGROUND  # [H, W]
    rows, columns = inside.any(1).nonzero().flatten().tolist(), inside.any(0).nonzero().flatten().tolist()
    if not rows:
        raise ValueError(
            f"The subject image of {alpha.shape[1]}x{alpha.shape[0]} pixels has no foreground: its {source} is empty. "
            "Use a picture with a subject, or a mask that is 1 on the subject."
        )
    size = (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    if max(size) < SMALLEST:
        raise ValueError(
            f"The foreground of the subject image is only {size[0]}x{size[1]} pixels ({source}); use a larger subject, "
            f"at least {SMALLEST} pixels on one side."
        )
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def _key_plain_background(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """[H, W, 3] -> (rgb without background in its edge colours, alpha [H, W]).

    Only what is joined to the border is removed, so a white eye on a white page stays. The thresholds follow the
    noise of the border, so compression does not become subject.
    """
    height, width, _ = rgb.shape
    border = torch.ones(height, width, dtype=torch.bool, device=rgb.device)
    ring = max(1, round(0.02 * min(height, width)))
    border[ring : height - ring, ring : width - ring] = False
    colour = rgb[border].median(dim=0).values  # [3]
    distance = (rgb - colour).abs().amax(-1)  # [H, W]
    plain = distance[border] < PLAIN_TOLERANCE
    share = plain.float().mean().item()
    if share < PLAIN_SHARE:
        raise ValueError(
            f"The subject image has no transparency, and its background is not plain: only {share:.0%} of its border "
            f"has one colour, {PLAIN_SHARE:.0%} are needed. Connect a mask that is 1 on the subject."
        )
    noise = distance[border][plain].sort().values[int(0.98 * (int(plain.sum()) - 1))].item()
    low = max(0.03, 1.5 * noise)  # up to here certainly background
    high = low + 0.08  # from here on certainly not

    outside = _joined(distance < high, seed=border & (distance < high))
    subject = ~outside
    # A lone pixel outside the rest is noise that passed the threshold.
    neighbours = F.avg_pool2d(subject[None].float(), 3, 1, 1)[0] * 9  # [H, W]
    outside |= subject & (neighbours < 2.5)
    # Along the outline a pixel mixes subject and background: its share is its distance relative to the largest one
    # next to it. Further inside alpha is 1.
    largest = F.max_pool2d(distance[None], 5, 1, 2)[0].clamp(min=high)
    mixed = ((distance - low) / (largest - low)).clamp(0, 1)
    edge = F.max_pool2d(outside[None].float(), 3, 1, 1)[0] > 0
    near = F.max_pool2d((~outside)[None].float(), 3, 1, 1)[0] > 0
    alpha = torch.where(edge, mixed, torch.ones_like(mixed)) * near
    pure = (rgb - (1 - alpha[..., None]) * colour) / alpha[..., None].clamp(min=1e-3)
    return torch.where(alpha[..., None] > 0, pure.clamp(0, 1), rgb), alpha


def _joined(passable: Tensor, seed: Tensor) -> Tensor:
    """[H, W] bool: the passable pixels that a path of passable pixels (4-connected) joins to the seed."""
    reached = seed & passable
    while True:
        before = int(reached.sum())
        reached = _sweep(passable, reached)
        reached = _sweep(passable.T, reached.T).T
        if int(reached.sum()) == before:
            return reached


def _sweep(passable: Tensor, reached: Tensor) -> Tensor:
    """Spreads `reached` along each row through whole runs of passable pixels."""
    run = (~passable).long().cumsum(dim=1)  # [H, W], the same number in one run
    hit = torch.zeros(run.shape[0], run.shape[1] + 1, device=run.device)
    hit.scatter_reduce_(1, run, reached.float(), reduce="amax")
    return (hit.gather(1, run) > 0) & passable

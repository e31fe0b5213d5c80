"""A TAESD-shaped decoder that starts as the linear patch decoder, written by hand instead of learned from nothing.

Nearest-neighbour upsampling shows all four pixels of a cell the same values, and convolutions treat every place alike,
so a decoder of this shape must first find out *where inside its cell* a pixel lies. The construction counts cells from
the zero padding of the left and top border (a ramp 1, 2, 3, ...). After an upsampling the ramp reads 1, 1, 2, 2, ...;
its negated second difference e is 1 on the first pixel of a pair, -1 on the second, and at least 3 on the last pixel of
a row of three or more cells. The tent relu(e) - 2 relu(e - 1) + relu(e - 2) turns that into `first` in {0, 1}. With one
such bit per axis, every quadrant's linear map is computed in ReLU units that the bits switch off elsewhere: 8x8 patch
-> four 4x4 -> sixteen 2x2 -> pixels.

The hand-written weights are brittle (a ramp that is off by a tenth closes the wrong gates), so training keeps them as
they are and learns in the units that the construction leaves free: two thirds of the network (`free_weights`,
`centre_free_units`).

The ramp counts to 10, so the start is exact for frames from 24 to 80 pixels a side; the miniature's are 64.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .latent import Block, MiniVAE, PatchPCA, bias_of, block_at, conv_at, to_patches

# Channels of the residual stream.
COARSE = slice(0, 24)  # what the level is given: latents, then components of 4x4 patches, then 2x2 patches
FINE = slice(32, 56)  # what the level makes of it, one quadrant per pixel
RAMP = (24, 25)  # x, y
EDGE = (26, 27)  # e, x and y
FIRST = (28, 29)  # the tent: 1 on the first pixel of a pair
ONE = 30
CARRIES = ((56, 57), (58, 59), (60, 61))  # a row of ones, shifted one cell further by every convolution
# (first in y, first in x) of the top left, top right, bottom left and bottom right pixel of a cell
QUADRANTS = ((1, 1), (1, 0), (0, 1), (0, 0))
# Stream values are kept positive by an offset, and a gate is closed by a push below zero that exceeds any open value.
LATENT_OFFSET = 8.0
FINE_OFFSETS = (6.0, 2.0, 2.0)
CENTRE = 0.5  # of the pixel range


# What no learned unit may write to.
POSITION = [*RAMP, *EDGE, *FIRST, ONE, *(channel for pair in CARRIES for channel in pair)]


@dataclass(frozen=True)
class Maps:
    """How the four quadrants of a cell follow from the values of the cell and of its neighbours.

    weights [4, size, cells, n + 1]: quadrant, output, (own cell[, the neighbour beside the quadrant, the one above or
    below, the diagonal one]), n input values and a constant that counts where the cell exists."""

    weights: torch.Tensor


def patch_basis(pca: PatchPCA) -> torch.Tensor:
    """[24, 48]: orthonormal components of 4x4x3 patches that hold nearly all that an 8x8 patch decodes to."""
    quadrants = torch.cat([quarter(pca.decode_weight, 4), quarter(pca.decode_bias[:, None] - CENTRE, 4)], -1)
    return torch.linalg.svd(rearrange(quadrants, "q p c -> p (q c)"))[0][:, : COARSE.stop].T.contiguous()


def quarter(rows: torch.Tensor, side: int) -> torch.Tensor:
    """Rows [(rgb y x), n] over the pixels of a patch of 2 x `side` -> rows [4, (rgb y x), n] over its quadrants."""
    return rearrange(rows, "(rgb y2 y x2 x) n -> (y2 x2) (rgb y x) n", rgb=3, y2=2, x2=2, y=side)


def linear_maps(pca: PatchPCA) -> Maps:
    """8x8 patch latents -> 4x4 patch components exactly as `pca.decode`: each cell by itself."""
    weights = torch.cat([quarter(pca.decode_weight, 4), quarter(pca.decode_bias[:, None] - CENTRE, 4)], -1)
    return Maps((patch_basis(pca) @ weights)[:, :, None])


def context_maps(pca: PatchPCA, batches: Iterable[torch.Tensor], noise: float) -> Maps:
    """The same by least squares from the cell and its three nearest neighbours: softens the patch grid.

    batches: frames [N, 3, R, R] in 0..1; noise: standard deviation of the noise on their latents."""
    basis, size = patch_basis(pca).double(), 4 * (pca.channels + 1)
    moments = torch.zeros(4, size, size, dtype=torch.float64)
    products = torch.zeros(4, size, len(basis), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for frames in batches:
        latents = pca.encode(frames)
        latents = latents + noise * torch.randn(latents.shape, generator=generator)
        values = F.pad(latents, (0, 0, 0, 0, 0, 1), value=1.0)  # [N, C + 1, h, w]
        around = F.unfold(values, 3, padding=1).unflatten(1, (-1, 3, 3)).double()  # [N, C + 1, 3, 3, h w]
        target = to_patches(frames).flatten(2).movedim(1, 0).flatten(1).double() - CENTRE  # [192, N h w]
        for quadrant, part in enumerate(quarter(target, 4)):
            taps = [around[:, :, y, x] for y, x in corner(quadrant)]
            rows = torch.stack(taps, 1).flatten(1, 2).movedim(1, -1).flatten(0, 1)  # [N h w, 4 (C + 1)]
            moments[quadrant] += rows.T @ rows
            products[quadrant] += rows.T @ (basis @ part).T
    ridge = 1e-6 * moments.diagonal(dim1=1, dim2=2).mean() * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(moments + ridge, products)  # [4, 4 (C + 1), 24]
    return Maps(rearrange(solution, "q (cell n) c -> q c cell n", cell=4).float())


def corner(quadrant: int) -> tuple[tuple[int, int], ...]:
    """The taps (y, x) of a 3x3 kernel that see the own cell and the three that meet it at the quadrant's corner."""
    y, x = 2 * (quadrant // 2), 2 * (quadrant % 2)
    return (1, 1), (1, x), (y, 1), (y, x)


@torch.no_grad()
def write_pca_decoder(vae: MiniVAE, pca: PatchPCA, maps: Maps) -> dict[str, torch.Tensor]:
    """Set the decoder's weights so that `vae.decode` makes of an 8x8 patch's latents what `maps` say.

    With `linear_maps` it all but equals `pca.decode`. Two small errors remain: tanh bends the largest latents, and 4x4
    patches pass through 24 of their 48 dimensions. Returns a mask for every parameter of the decoder: 1 where a weight
    is free to learn, 0 where the construction stands."""
    decoder, channels = vae.taesd_decoder, pca.channels
    for parameter in decoder.parameters():
        parameter.zero_()  # a unit that is still zero at the end is free

    # latents, ramps
    first = conv_at(decoder, 1)
    for channel in range(channels):
        first.weight[channel, channel, 1, 1] = 1 / vae.vae_scale.item()
    bias_of(first)[COARSE] = LATENT_OFFSET
    bias_of(first)[[*RAMP, *CARRIES[0], ONE]] = 1
    for number in range(3):
        count_cells(block_at(decoder, 3 + number), CARRIES[number], CARRIES[number + 1] if number < 2 else None)

    # 8x8 patch -> 4x4 patches
    upsample(conv_at(decoder, 7), COARSE, channels)
    split_cells(block_at(decoder, 8), maps, LATENT_OFFSET, FINE_OFFSETS[0], now=(0, 1))
    late_quadrants(block_at(decoder, 9), maps, LATENT_OFFSET, FINE_OFFSETS[0], which=(2, 3))

    # 4x4 patch -> 2x2 patches -> pixels: plain selections of values
    for level, values in enumerate((patch_basis(pca).T, torch.eye(12)), start=1):
        selections = quarter(values, 4 >> level)
        selections = Maps(F.pad(selections, (0, 1))[:, :, None])
        upsample(conv_at(decoder, 5 * level + 7), FINE, values.shape[1])
        before, after = FINE_OFFSETS[level - 1 : level + 1]
        split_cells(block_at(decoder, 5 * level + 8), selections, before, after, now=(0, 1, 2, 3))
    last = conv_at(decoder, 19)
    for channel in range(3):
        last.weight[channel, FINE.start + channel, 1, 1] = 1
    bias_of(last).fill_(CENTRE - FINE_OFFSETS[2])
    return free_weights(decoder)


def count_cells(block: Block, carry: tuple[int, int], next_carry: tuple[int, int] | None) -> None:
    """Add three shifted rows of ones to both ramps: ramp = min(position + 1, 10) after three blocks."""
    one, two, three = block.layers
    for axis in range(2):
        before = (1, 0) if axis == 0 else (0, 1)  # the tap that reads the cell to the left, or above
        one.weight[(axis, carry[axis], *before)] = 1
        two.weight[(axis, axis, *before)] = 1
        two.weight[axis + 2, axis, 1, 1] = 1
        three.weight[RAMP[axis], axis + 2, 1, 1] = 1
        three.weight[RAMP[axis], axis, 1, 1] = 1
        three.weight[(RAMP[axis], axis, *before)] = 1
        if next_carry is not None:
            three.weight[(next_carry[axis], axis, *before)] = 1


def upsample(layer: nn.Conv2d, source: slice, count: int) -> None:
    """After nearest upsampling: move `count` values from `source` to COARSE, keep the ramps, form the edges e."""
    layer.weight[ONE, ONE, 1, 1] = 1
    for channel in range(count):
        layer.weight[COARSE.start + channel, source.start + channel, 1, 1] = 1
    for axis in range(2):
        layer.weight[RAMP[axis], RAMP[axis], 1, 1] = 1
        row = torch.tensor([-1.0, 2.0, -1.0])
        if axis == 0:
            layer.weight[EDGE[0], RAMP[0], 1, :] = row
        else:
            layer.weight[EDGE[1], RAMP[1], :, 1] = row


def split_cells(block: Block, maps: Maps, offset_in: float, offset_out: float, now: tuple[int, ...]) -> None:
    """Find out the pixel's quadrant and write the maps of the quadrants `now` to FINE; refine the ramps."""
    one, two, three = block.layers
    count = maps.weights.shape[-1] - 1
    for unit in range(count):
        one.weight[unit, COARSE.start + unit, 1, 1] = 1
    tents = torch.zeros(2, 64)  # `first` of each axis as a function of the first hidden layer
    for axis in range(2):
        for knee, slope in enumerate((1.0, -2.0, 1.0)):
            unit = count + 3 * axis + knee
            one.weight[unit, EDGE[axis], 1, 1] = 1
            bias_of(one)[unit] = -knee
            tents[axis, unit] = slope
        one.weight[count + 6 + axis, RAMP[axis], 1, 1] = 1
    bias_of(one)[count + 8] = 1
    identity = torch.eye(64)
    inputs = GateInputs(identity[:count], tents, identity[count + 8], offset_in)
    units = gates(two, maps, now, inputs, offset_out)
    for axis in range(2):
        two.weight[units + axis, :, 1, 1] = tents[axis]
        two.weight[units + 2 + axis, count + 6 + axis, 1, 1] = 1
        three.weight[FIRST[axis], units + axis, 1, 1] = 1
        three.weight[RAMP[axis], units + 2 + axis, 1, 1] = 1  # ramp <- 2 ramp - first
        three.weight[RAMP[axis], units + axis, 1, 1] = -1
    collect(three, maps.weights.shape[1], len(now))


def late_quadrants(block: Block, maps: Maps, offset_in: float, offset_out: float, which: tuple[int, ...]) -> None:
    """Write the maps of the quadrants `which` to FINE in a block whose stream knows `first` already."""
    one, two, three = block.layers
    identity = torch.eye(64)
    inputs = GateInputs(identity[COARSE], identity[list(FIRST)], identity[ONE], offset_in)
    units = gates(one, maps, which, inputs, offset_out)
    for unit in range(units):
        two.weight[unit, unit, 1, 1] = 1
    collect(three, maps.weights.shape[1], len(which))


@dataclass
class GateInputs:
    """Where a layer's input holds what the gates need: rows of weights over its 64 channels."""

    values: torch.Tensor  # [n, 64], each value plus `offset`
    firsts: torch.Tensor  # [2, 64], the bits of x and y
    one: torch.Tensor  # [64], a constant 1
    offset: float


def gates(layer: nn.Conv2d, maps: Maps, which: tuple[int, ...], inputs: GateInputs, offset_out: float) -> int:
    """Units relu(map of the values + offset_out - push x wrong bits), a group per quadrant; returns how many."""
    size, push = maps.weights.shape[1], 4 * offset_out
    for group, quadrant in enumerate(which):
        rows = slice(group * size, (group + 1) * size)
        in_y, in_x = QUADRANTS[quadrant]
        # in_x + in_y on the right quadrant, less elsewhere
        bits = (1.0 if in_x else -1.0) * inputs.firsts[0] + (1.0 if in_y else -1.0) * inputs.firsts[1]
        layer.weight[rows, :, 1, 1] = push * bits.expand(size, -1)
        bias_of(layer)[rows] = 0
        for cell, tap in enumerate(corner(quadrant)[: maps.weights.shape[2]]):
            # GPUs run this decoder in bfloat16. Offsets are large against what they carry, so they must meet weights
            # that survive the rounding, and constants are split into a rounded part and a small rest (the bias). The
            # constants sit on the channel `one`: beyond the frame's edge they vanish together with the values.
            matrix, constant = maps.weights[quadrant, :, cell].split([maps.weights.shape[-1] - 1, 1], -1)
            matrix = matrix.bfloat16().float()
            constant = constant[:, 0] - inputs.offset * matrix.sum(1)
            if cell == 0:
                constant = constant + offset_out - push * (in_x + in_y)
            rounded = constant.bfloat16().float()
            layer.weight[(rows, slice(None), *tap)] += matrix @ inputs.values[: matrix.shape[1]]
            layer.weight[(rows, slice(None), *tap)] += torch.outer(rounded, inputs.one)
            bias_of(layer)[rows] += constant - rounded
    return size * len(which)


def collect(layer: nn.Conv2d, size: int, groups: int) -> None:
    """Sum the gate groups into FINE: one of them is open at every pixel."""
    for group in range(groups):
        for channel in range(size):
            layer.weight[FINE.start + channel, group * size + channel, 1, 1] = 1


# --- what is left to learn --------------------------------------------------------------------------------------------


def free_weights(decoder: nn.Sequential) -> dict[str, torch.Tensor]:
    """Masks by parameter name, 1 where a weight is free to learn; call it right after the construction."""
    masks = {name: torch.ones_like(parameter) for name, parameter in decoder.named_parameters()}
    for number, layer in enumerate(decoder):
        if isinstance(layer, Block):
            for index, hidden in ((0, layer.layers[0]), (2, layer.layers[1])):
                used = used_units(hidden)
                masks[f"{number}.conv.{index}.weight"][used] = 0
                masks[f"{number}.conv.{index}.bias"][used] = 0
            masks[f"{number}.conv.4.weight"][:, used_units(layer.layers[1])] = 0
            masks[f"{number}.conv.4.weight"][POSITION] = 0
            masks[f"{number}.conv.4.bias"][POSITION] = 0
        elif isinstance(layer, nn.Conv2d) and layer.out_channels > 3:
            for part in ("weight", "bias") if layer.bias is not None else ("weight",):
                masks[f"{number}.{part}"][used_units(layer)] = 0
                masks[f"{number}.{part}"][POSITION] = 0
    return masks


def used_units(layer: nn.Conv2d) -> torch.Tensor:
    """Which output channels [C] of a constructed layer are not all zero."""
    used = layer.weight.flatten(1).ne(0).any(1)
    return used if layer.bias is None else used | layer.bias.ne(0)


@torch.no_grad()
def centre_free_units(decoder: nn.Sequential, latents: torch.Tensor) -> None:
    """Give the free hidden units random weights, scaled so that they see inputs of zero mean and unit variance.

    latents [N, C, h, w] are what the decoder is called with (already scaled). The units' outputs stay unconnected, so
    the decoder still computes the same pictures. Without this the offsets of the stream would drown what they carry."""
    x = latents
    for layer in decoder:
        if isinstance(layer, Block):
            hidden = x
            for conv in layer.layers[:2]:
                free = ~used_units(conv)
                conv.weight[free] = torch.randn_like(conv.weight[free])
                response = F.conv2d(hidden, conv.weight, padding=1)[:, free]  # [N, units, h, w]
                std, mean = torch.std_mean(response, (0, 2, 3))
                conv.weight[free] /= std[:, None, None, None]
                bias_of(conv)[free] = -mean / std
                hidden = F.relu(conv(hidden))
        x = layer(x)

"""Memory formats and pieces: the same numbers whichever way they are computed, and nobody's input is changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dv2_core.model import attention
from dv2_core.model.attention import FeedForward, plain_attention, sdpa_attention
from dv2_core.model.blocks import ResBlock, SpatialTransformer, TemporalTransformer
from dv2_core.model.layout import CHUNK_ROWS, by_video, lay_out, pointwise_conv, temporal_conv
from tests.oracles.public import noise, randomise, relative_error

BOUND = 1e-5
FRAMES = 3
PLAIN, LAST = torch.contiguous_format, torch.channels_last


def feature_map(videos: int, height: int = 12, width: int = 10) -> Tensor:
    return noise(videos * FRAMES, 32, height, width)


@pytest.mark.parametrize("videos", [1, 2])
@pytest.mark.parametrize("layout", [PLAIN, LAST])
@torch.no_grad()
def test_the_temporal_convolution_equals_conv3d_and_keeps_the_layout(videos: int, layout: torch.memory_format) -> None:
    conv: Any = randomise(temporal_conv(nn)(32, 32, (3, 1, 1), padding=(1, 0, 0)))
    x = by_video(feature_map(videos).contiguous(memory_format=layout), FRAMES)
    out = conv(x)
    assert relative_error(out, nn.functional.conv3d(x, conv.weight, conv.bias, padding=(1, 0, 0))) <= BOUND
    assert conv.weight.shape == (32, 32, 3, 1, 1)
    # One video hides its layout easily, and the next layer would transpose it.
    frames = out.transpose(1, 2).flatten(0, 1)
    assert nn.functional.group_norm(frames, 32).is_contiguous(memory_format=layout)


@torch.no_grad()
def test_the_pointwise_convolution_takes_tokens_and_keeps_the_published_shape() -> None:
    conv: Any = randomise(pointwise_conv(nn)(32, 48, 1))
    tokens = noise(2, 7, 32)
    expected = nn.functional.conv1d(tokens.transpose(1, 2), conv.weight, conv.bias).transpose(1, 2)
    assert relative_error(conv(tokens), expected) <= BOUND
    assert conv.weight.shape == (48, 32, 1)


@torch.no_grad()
def test_the_layers_come_from_the_given_operations() -> None:
    """Casting and offloading of weights are the operations' own: only what is computed with them differs."""

    class Doubling:
        class Conv1d(nn.Conv1d):
            def forward(self, input: Tensor) -> Tensor:
                return self._conv_forward(input, 2 * self.weight, self.bias)

    conv = pointwise_conv(Doubling)(4, 4, 1, bias=False)
    tokens = noise(1, 3, 4)
    assert relative_error(conv(tokens), 2 * tokens @ conv.weight[..., 0].T) <= BOUND


def test_a_feed_forward_in_pieces_equals_the_whole() -> None:
    layer = randomise(FeedForward(8, nn))
    x = noise(2, CHUNK_ROWS - 3, 8)  # the last piece is shorter, and one holds the end of the first row
    with torch.no_grad():
        in_pieces = layer(x)
    assert relative_error(in_pieces, layer(x).detach()) <= 1e-6


@pytest.mark.parametrize("videos", [1, 2])
def test_a_temporal_transformer_in_pieces_equals_the_whole(videos: int) -> None:
    layer = randomise(TemporalTransformer(32, 4, 8, sdpa_attention, nn))
    x = feature_map(videos, 20, 24)
    assert 20 * 24 * FRAMES > CHUNK_ROWS
    with torch.no_grad():
        in_pieces = layer(x, FRAMES, {})
    assert relative_error(in_pieces, layer(x, FRAMES, {}).detach()) <= BOUND


def test_attention_over_more_rows_than_a_gpu_takes_at_once_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = noise(7, 5, 16), noise(7, 3, 16, seed=1), noise(7, 3, 16, seed=2)
    whole = sdpa_attention(q, k, v, heads=2)
    assert relative_error(whole, plain_attention(q, k, v, heads=2)) <= BOUND
    seen, fused = [], nn.functional.scaled_dot_product_attention

    def recorded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(q.shape[0])
        return fused(q, k, v)

    monkeypatch.setattr(attention, "MAX_BATCH", 3)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", recorded)
    assert torch.equal(sdpa_attention(q, k, v, heads=2), whole)
    assert seen == [3, 3, 1]


def layers() -> dict[str, Callable[[Tensor], Tensor]]:
    emb, text = noise(FRAMES, 16), noise(1, 5, 24)
    res: Any = randomise(ResBlock(32, 32, 16, nn))
    spatial: Any = randomise(SpatialTransformer(32, 24, 8, sdpa_attention, nn))
    temporal: Any = randomise(TemporalTransformer(32, 4, 8, sdpa_attention, nn))
    return {
        "res": lambda x: res(x, emb, FRAMES),
        "spatial": lambda x: spatial(x, text, {}),
        "temporal": lambda x: temporal(x, FRAMES, {}),
    }


@pytest.mark.parametrize("name", ["res", "spatial", "temporal"])
@torch.no_grad()
def test_a_layer_leaves_its_input_alone_and_gives_the_same_in_both_layouts(name: str) -> None:
    layer = layers()[name]
    x = feature_map(1)
    before = x.clone()
    plain, last = layer(x), layer(x.contiguous(memory_format=LAST))
    assert torch.equal(x, before)
    assert relative_error(last, plain) <= BOUND
    assert last.is_contiguous(memory_format=LAST)


@torch.no_grad()
def test_only_large_maps_on_a_cpu_are_channels_last() -> None:
    large, small = noise(2, 8, 14, 8), noise(2, 8, 7, 4)
    assert lay_out(large).is_contiguous(memory_format=LAST)
    assert lay_out(small.contiguous(memory_format=LAST)).is_contiguous()
    assert lay_out(large.to("meta")).is_contiguous()


def test_training_keeps_the_plain_layout() -> None:
    assert lay_out(noise(2, 8, 14, 8)).is_contiguous()

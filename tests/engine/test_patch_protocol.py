"""The UNet's own patch protocol held against ComfyUI's, patch by patch: same weights, same calls, same numbers."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dv2_core.model import UNet3D, UNet3DConfig, sdpa_attention
from dv2_core.model.attention import TransformerBlock
from dv2_core.model.blocks import TemporalConvBlock, TemporalTransformer
from tests.oracles.public import noise, randomise, relative_error

BOUND = 1e-5
CONFIG = UNet3DConfig(model_channels=32, head_dim=8, context_dim=24)
FRAMES, VIDEOS = 3, 2
ROWS = FRAMES * VIDEOS

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Recorder:
    """Makes patches that note their arguments and change what they pass on."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def patch(self, name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def patched(*args: Any) -> Any:
            *values, options = args
            kept = tuple(v.clone() if isinstance(v, Tensor) else v for v in values)
            # The list of patches itself holds this recorder's own functions.
            # The hidden states are an addition under a name of our own, which other patches do not look at.
            left_out = ("patches", "patches_replace", "dv2_hidden_states")
            own = {k: v for k, v in options.items() if k not in left_out}
            self.calls.append((name, kept, {k: list(v) if isinstance(v, list) else v for k, v in own.items()}))
            return change(*args)

        return patched


def assert_same_calls(ours: list[Call], reference: list[Call]) -> None:
    assert [name for name, _, _ in ours] == [name for name, _, _ in reference]
    for (name, values, options), (_, expected, expected_options) in zip(ours, reference, strict=True):
        assert options == expected_options, name
        assert len(values) == len(expected), name
        for value, other in zip(values, expected, strict=True):
            if isinstance(other, Tensor):
                assert relative_error(value, other) <= BOUND, name
            else:
                assert value == other, name


def twice(tokens: Tensor) -> Tensor:
    """More tokens to attend to, as IP-Adapter-like patches give."""
    return torch.cat([tokens, 0.5 * tokens.flip(1)], dim=1)


def block_patches(recorder: Recorder, names: tuple[str, ...]) -> dict[str, Any]:
    """transformer_options entries for patches ("attn1_patch", ...) and replacements ("attn1 by index", ...)."""

    def replacement(name: str, factor: float) -> Callable[..., Tensor]:
        return recorder.patch(name, lambda q, k, v, extra: sdpa_attention(q, factor * k, v, extra["n_heads"]))

    options: dict[str, Any] = {"patches": {}, "patches_replace": {}}
    for name in names:
        attn, _, rest = name.partition(" ")
        if rest:
            key = {"by index": ("input", 4, 0), "by block": ("input", 4), "of another block": ("input", 5)}[rest]
            replacements = options["patches_replace"].setdefault(attn, {})
            replacements[key] = replacement(name, 0.5 + len(replacements))
        elif name in ("attn1_patch", "attn2_patch"):
            first = recorder.patch(name, lambda n, c, v, extra: (1.1 * n, twice(c), twice(v) + 0.1))
            second = recorder.patch(name + " again", lambda n, c, v, extra: (n + 0.1, c, 0.9 * v))
            options["patches"][name] = [first, second]
        elif name == "middle_patch":
            options["patches"][name] = [recorder.patch(name, lambda x, extra: x + 0.2)]
        else:
            first = recorder.patch(name, lambda n, extra: 0.7 * n + 0.1)
            options["patches"][name] = [first, recorder.patch(name + " again", lambda n, extra: n * n)]
    return options


ALL_PATCHES = ("attn1_patch", "attn1_output_patch", "middle_patch", "attn2_patch", "attn2_output_patch")


@pytest.mark.parametrize("text_rows", ["per frame", "per video"])
@pytest.mark.parametrize(
    "names",
    [
        (),
        *((name,) for name in ALL_PATCHES),
        *(
            (f"{attn} {where}",)
            for attn in ("attn1", "attn2")
            for where in ("by index", "by block", "of another block")
        ),
        ("attn1 by block", "attn1 by index"),
        ("attn1_patch", "attn1 by block", "attn2_patch", "attn2 by index"),
        (*ALL_PATCHES, "attn1 by index", "attn2 by block"),
    ],
    ids=lambda names: " + ".join(names) or "no patch",
)
@torch.no_grad()
def test_every_block_patch_is_called_as_comfyui_calls_it(names: tuple[str, ...], text_rows: str, comfy: Any) -> None:
    comfy()
    reference_class = importlib.import_module("comfy.ldm.modules.attention").BasicTransformerBlock
    ours: Any = randomise(TransformerBlock(32, 24, 4, 8, sdpa_attention, nn))
    reference = reference_class(32, 4, 8, context_dim=24, operations=nn)
    reference.load_state_dict(ours.state_dict(), strict=True)
    reference.eval()
    x, per_video = noise(ROWS, 20, 32), noise(VIDEOS, 7, 24, seed=2)
    per_frame = per_video.repeat_interleave(FRAMES, dim=0)

    def run(block: Any, context: Tensor) -> tuple[Tensor, list[Call]]:
        recorder = Recorder()
        options = {
            "block": ("input", 4),
            "block_index": 0,
            "cond_or_uncond": [1, 0],
            "activations_shape": [ROWS, 32, 4, 5],
            **block_patches(recorder, names),
        }
        return block(x, context, options), recorder.calls

    out, calls = run(ours, per_video if text_rows == "per video" else per_frame)
    expected, expected_calls = run(reference, per_frame)
    assert relative_error(out, expected) <= BOUND
    assert_same_calls(calls, expected_calls)
    hit = [name for name in names if "another block" not in name]
    if "attn1 by index" in hit and "attn1 by block" in hit:
        hit.remove("attn1 by block")  # the more exact key wins
    assert {name.removesuffix(" again") for name, _, _ in calls} == set(hit)


@torch.no_grad()
def test_patches_of_one_block_share_their_extra_options_as_in_comfyui(comfy: Any) -> None:
    comfy()
    reference_class = importlib.import_module("comfy.ldm.modules.attention").BasicTransformerBlock
    for block in (
        TransformerBlock(32, 24, 4, 8, sdpa_attention, nn),
        reference_class(32, 4, 8, context_dim=24, operations=nn),
    ):
        seen: list[Any] = []

        def leave(n: Tensor, context: Tensor, value: Tensor, extra: Any) -> tuple[Tensor, Tensor, Tensor]:
            extra["note"] = "left by attn1_patch"
            return n, context, value

        def find(n: Tensor, extra: Any, seen: list[Any] = seen) -> Tensor:
            seen.append(extra.get("note"))
            return n

        options: dict[str, Any] = {
            "block": ("input", 1),
            "patches": {"attn1_patch": [leave], "attn2_output_patch": [find]},
        }
        block(noise(2, 5, 32), noise(2, 3, 24), options)
        assert seen == ["left by attn1_patch"] and "note" not in options


@pytest.fixture(scope="module")
def spatial_unet() -> Any:
    """Our UNet with random spatial weights and silent temporal layers: an image UNet."""
    unet = randomise(UNet3D(CONFIG))
    for module in unet.modules():
        if isinstance(module, TemporalTransformer):
            nn.init.zeros_(module.proj_out.weight), nn.init.zeros_(module.proj_out.bias)
        elif isinstance(module, TemporalConvBlock):
            nn.init.zeros_(module.conv4[3].weight), nn.init.zeros_(module.conv4[3].bias)
    return unet


def comfyui_unet(unet: UNet3D) -> Any:
    """ComfyUI's ``UNetModel`` with the weights of an image UNet."""
    levels = len(CONFIG.channel_mult)
    attended = [int(level in CONFIG.attention_levels) for level in range(levels)]
    blocks = CONFIG.num_res_blocks
    reference = importlib.import_module("comfy.ldm.modules.diffusionmodules.openaimodel").UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=CONFIG.model_channels,
        num_res_blocks=[blocks] * levels,
        channel_mult=list(CONFIG.channel_mult),
        num_head_channels=CONFIG.head_dim,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        transformer_depth=[depth for depth in attended for _ in range(blocks)],
        transformer_depth_output=[depth for depth in attended for _ in range(blocks + 1)],
        transformer_depth_middle=1,
        context_dim=CONFIG.context_dim,
    )
    temporal = tuple(name + "." for name, module in unet.named_modules()
                     if isinstance(module, (TemporalTransformer, TemporalConvBlock)))  # fmt: skip
    weights = {}
    for key, value in unet.state_dict().items():
        if key.startswith(temporal):
            continue
        parts = key.split(".")
        if parts[2] == "op":
            parts.insert(2, "0")
        elif parts[0] == "middle_block" and parts[1] == "3":
            parts[1] = "2"
        elif parts[0] == "output_blocks" and parts[2] == "3":
            parts[2] = "2"
        weights[".".join(parts)] = value
    reference.load_state_dict(weights, strict=True)
    return reference.eval()


def unet_patches(recorder: Recorder) -> dict[str, list[Any]]:
    patches = {
        "emb_patch": [recorder.patch("emb_patch", lambda emb, width, options: 0.9 * emb)],
        "input_block_patch": [recorder.patch("input_block_patch", lambda h, options: h + 0.05)],
        "input_block_patch_after_skip": [recorder.patch("input_block_patch_after_skip", lambda h, options: 0.95 * h)],
        "output_block_patch": [
            recorder.patch("output_block_patch", lambda h, skip, options: (1.1 * h, 0.9 * skip)),
            recorder.patch("output_block_patch again", lambda h, skip, options: (h, skip + 0.01)),
        ],
    }
    return patches | block_patches(recorder, ALL_PATCHES)["patches"]


@pytest.mark.parametrize("size", [(16, 24), (7, 5)])
@pytest.mark.parametrize("control", ["without control", "with control"])
@torch.no_grad()
def test_every_patch_of_the_unet_is_called_as_comfyui_calls_it(
    control: str, size: tuple[int, int], comfy: Any, spatial_unet: Any
) -> None:
    comfy()
    x, context = noise(ROWS, 4, *size), noise(ROWS, 7, CONFIG.context_dim, seed=2)
    timesteps = torch.tensor([37.0, 801.0]).repeat_interleave(FRAMES)

    def residuals(skips: list[Tensor]) -> dict[str, list[Any]] | None:
        """Random ControlNet and T2I-Adapter residuals, each list in the order in which it is consumed from the end."""
        if control == "without control":
            return None
        some = [noise(*skip.shape, seed=n) if n % 3 else None for n, skip in enumerate(skips)]
        return {"input": some[::-1], "middle": [noise(*skips[-1].shape, seed=50)],
                "output": [noise(*skip.shape, seed=99 - n) for n, skip in enumerate(skips)]}  # fmt: skip

    shapes: list[Tensor] = []
    note = {"patches": {"input_block_patch": [lambda h, options: shapes.append(h) or h]}}
    spatial_unet(x, timesteps, context, num_video_frames=FRAMES, transformer_options=note)

    def run(unet: Any, **more: Any) -> tuple[Tensor, list[Call], dict[str, Any]]:
        recorder = Recorder()
        options: dict[str, Any] = {"cond_or_uncond": [1, 0], "patches": unet_patches(recorder)}
        out = unet(x, timesteps, context, control=residuals(shapes), transformer_options=options, **more)
        return out, recorder.calls, options

    out, calls, options = run(spatial_unet, num_video_frames=FRAMES)
    expected, expected_calls, expected_options = run(comfyui_unet(spatial_unet))
    assert relative_error(out, expected) <= BOUND
    assert_same_calls(calls, expected_calls)
    names = [name for name, _, _ in calls]
    assert names.count("attn1_output_patch") == 16 and names.count("input_block_patch") == 12
    assert {k: v for k, v in options.items() if k != "patches"} == {
        k: v for k, v in expected_options.items() if k != "patches"
    }


@torch.no_grad()
def test_spatial_patches_never_see_the_tokens_of_temporal_transformers(comfy: Any, spatial_unet: Any) -> None:
    shapes: set[tuple[int, ...]] = set()

    def record(n: Tensor, extra: Any) -> Tensor:
        shapes.add((n.shape[0], n.shape[1]))
        return n

    options = {"patches": {"attn1_output_patch": [record], "attn2_output_patch": [record], "middle_patch": [record]}}
    x, context = noise(ROWS, 4, 16, 24), noise(VIDEOS, 7, CONFIG.context_dim, seed=2)
    spatial_unet(x, torch.tensor([5.0, 5.0]), context, num_video_frames=FRAMES, transformer_options=options)
    assert shapes == {(ROWS, 16 * 24 >> 2 * level) for level in range(4)}


@torch.no_grad()
def test_an_attention_override_reaches_spatial_and_temporal_attention_alike(comfy: Any) -> None:
    comfy()
    attention = importlib.import_module("comfy.ldm.modules.attention").optimized_attention
    unet = randomise(UNet3D(CONFIG, attention=attention))
    lengths: list[int] = []

    def override(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, **more: Any) -> Tensor:
        lengths.append(q.shape[1])
        return function(q, k, v, heads, **more)

    inputs = (noise(ROWS, 4, 16, 8), torch.tensor([5.0, 5.0]), noise(VIDEOS, 7, CONFIG.context_dim, seed=2))
    plain = unet(*inputs, num_video_frames=FRAMES)
    out = unet(*inputs, num_video_frames=FRAMES, transformer_options={"optimized_attention_override": override})
    assert torch.equal(out, plain)
    assert len(lengths) == 2 * (16 + 17) and lengths.count(FRAMES) == 2 * 17

"""Parts of the training data: frames and boxes cut alike, the subject image, the frozen models."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dv2_core.boxes import from_masks, rasterize
from dv2_core.manifest import ClipRow, parse_row
from dv2_core.train.augment import subject_picture
from dv2_core.train.data_config import AugmentConfig
from dv2_core.train.data_sources import ClipSource, shard_paths
from dv2_core.train.encoders import VAE, TextEncoder
from dv2_core.train.video import Fit, read_frames, sampled_frames
from tests.drawn_clips import draw_frames, write_clip, write_manifest

CPU = torch.device("cpu")
MODELS = Path(__file__).resolve().parents[2] / "models"
NOTHING = AugmentConfig(mirror=0, rotate=0, scale=0, colour=0, crop=0)


def row_of(values: dict) -> ClipRow:
    row = parse_row(json.dumps(values), "clips.jsonl:1")
    assert row is not None
    return row


def clip_row(boxes: list, width: int = 40, height: int = 30, fps: float = 25.0) -> ClipRow:
    return row_of({"video": "x.mp4", "caption": "x", "fps": fps, "frames": [0, len(boxes)], "width": width,
                   "height": height, "boxes": boxes})  # fmt: skip


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_clip_is_sampled_at_the_wanted_rate_from_its_first_frame() -> None:
    row = clip_row([[0, 0, 9, 9]] * 50)
    assert sampled_frames(row, 6, 8.0, "") == [0, 3, 6, 9, 12, 16]
    assert sampled_frames(clip_row([[0, 0, 9, 9]] * 4, fps=8.0), 4, 8.0, "") == [0, 1, 2, 3]


@pytest.mark.parametrize("target", [(40, 30), (24, 24), (64, 24), (16, 48)])
def test_boxes_are_resized_and_cropped_as_the_frames_are(target: tuple[int, int]) -> None:
    box, picture = [12, 8, 28, 24], np.zeros((30, 40, 3), np.uint8)
    picture[8:24, 12:28] = 255
    fit = Fit((40, 30), target)
    frame = fit.frame(picture)
    assert frame.shape == (3, target[1], target[0])
    seen, asked = from_masks(frame.mean(0, keepdim=True)).boxes[0], fit.track(clip_row([box]), [0], "").boxes[0]
    pixels = np.abs(np.subtract(seen, asked)) * (*target, *target)
    assert pixels.max() <= 1.0


def test_a_frame_without_the_subject_has_an_empty_mask() -> None:
    # No box in frame 1, and frame 2's is cut away with the left edge.
    row = clip_row([[10, 5, 30, 25], None, [0, 5, 4, 25], [10, 5, 30, 25]])
    track = Fit((40, 30), (24, 24)).track(row, [0, 1, 2, 3], "")
    assert track.visible == (True, False, False, True)
    assert rasterize(track, 24, 24).flatten(1).any(1).tolist() == [True, False, False, True]


def test_a_video_gives_just_the_frames_that_were_asked_for(tmp_path: Path) -> None:
    row = row_of(write_clip(tmp_path, "fish"))
    frames, _ = draw_frames("fish")
    read = dict(read_frames(tmp_path / "fish.mp4", {7, 2}, row, ""))
    assert sorted(read) == [2, 7]
    for number, pixels in read.items():
        errors = [np.abs(pixels.astype(float) - other).mean() for other in frames.astype(float)]
        assert int(np.argmin(errors)) == number and errors[number] < 3


# --- the subject image ------------------------------------------------------------------------------------------------


def picture_of(config: AugmentConfig, seed: int = 1) -> torch.Tensor:
    frames, masks = draw_frames("fish")
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    return subject_picture(frames[0], masks[0], (48, 32), config, rng)


def test_the_subject_is_cut_out_by_its_mask_onto_white_and_nothing_else_is_seen() -> None:
    frames, masks = draw_frames("fish")
    noisy = np.where(masks[0][..., None], frames[0], np.random.default_rng(0).integers(0, 255, frames[0].shape))
    rng = np.random.Generator(np.random.Philox(key=[1, 0]))
    picture = subject_picture(noisy.astype(np.uint8), masks[0], (48, 32), NOTHING, rng)
    assert torch.equal(picture, picture_of(NOTHING))
    assert picture.shape == (3, 32, 48) and bool((picture[:, 0] == 1).all() and (picture[:, :, :8] == 1).all())
    assert picture.min() < 0.5


@pytest.mark.parametrize("name", ["mirror", "rotate", "scale", "colour", "crop"])
def test_each_change_alters_the_subject_image_repeatably_and_at_its_chance(name: str) -> None:
    plain, always = picture_of(NOTHING), AugmentConfig(**{**vars(NOTHING), name: 1.0})
    changed = picture_of(always)
    assert not torch.equal(changed, plain) and torch.equal(changed, picture_of(always))
    if name == "mirror":
        assert torch.allclose(changed, plain.flip(2), atol=1e-3)
    if name != "mirror":
        assert not torch.equal(changed, picture_of(always, seed=2))
    often = [not torch.equal(picture_of(AugmentConfig(**{**vars(NOTHING), name: 0.5}), n), plain) for n in range(24)]
    assert 4 <= sum(often) <= 20


def test_masks_in_a_folder_are_those_in_the_row(tmp_path: Path) -> None:
    values = write_clip(tmp_path, "fish")
    _, masks = draw_frames("fish")
    (tmp_path / "grey").mkdir()
    (tmp_path / "palette").mkdir()
    for number, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "grey" / f"{number:05d}.png")
        coloured = Image.fromarray(mask.astype(np.uint8) * 2 + 1, "P")  # 1 another object, 3 the subject
        coloured.putpalette([0, 0, 0, 9, 9, 9, 99, 99, 99, 255, 0, 0])
        coloured.save(tmp_path / "palette" / f"{number:05d}.png")
    (tmp_path / "grey" / "00004.png").unlink()
    rows = [
        {**values, "mask_rle": None, "mask_path": folder, "subject": {"obj_id": "3"}} for folder in ("grey", "palette")
    ]
    source = ClipSource.of_manifest(write_manifest(tmp_path / "m.jsonl", rows), None, lambda *_: None)
    for index in (0, 1):
        row, where = source.row(index)
        found = source.mask(row, where, 2)
        assert found is not None and np.array_equal(found, masks[2])
    assert source.mask(*source.row(0), 4) is None
    Image.new("L", (8, 8)).save(tmp_path / "grey" / "00002.png")
    with pytest.raises(ValueError, match="m.jsonl:1: the mask 00002.png is 8x8, the video 64x48"):
        source.mask(*source.row(0), 2)


# --- shards -----------------------------------------------------------------------------------------------------------


def test_shard_ranges_keep_their_zeros_and_a_missing_shard_is_named(tmp_path: Path) -> None:
    for name in ("a-008.tar", "a-009.tar", "a-010.tar"):
        (tmp_path / name).write_bytes(b"")
    names = ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert [path.name for path in shard_paths(f"{tmp_path}/a-{{008..010}}.tar")] == names
    assert [path.name for path in shard_paths(f"{tmp_path}/a-*.tar")] == names
    with pytest.raises(ValueError, match="there is no file .*a-011.tar"):
        shard_paths(f"{tmp_path}/a-{{008..011}}.tar")


def test_a_compressed_shard_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(ValueError, match="a.tar is no uncompressed tar file"):
        ClipSource.of_shards(str(tmp_path / "a.tar"), lambda *_: None)


# --- the frozen models ------------------------------------------------------------------------------------------------


def original_name(name: str) -> str:
    """Diffusers' name of a tensor of a four-level AutoencoderKL -> the one in Stable Diffusion's own files."""
    for old, new in (
        (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"mid_block\.attentions\.0", "mid.attn_1"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
        ("to_v", "v"), (r"to_out\.0", "proj_out"), ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"),
    ):  # fmt: skip
        name = re.sub(old, new, name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)


def tiny_kl(levels: int = 4):  # noqa: ANN201
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(32,) * levels, layers_per_block=1, sample_size=16,
    )  # fmt: skip


def test_a_stable_diffusion_vae_is_the_same_from_a_folder_and_from_either_single_file(tmp_path: Path) -> None:
    kl = tiny_kl().eval()
    kl.save_pretrained(tmp_path / "model" / "vae")
    weights = load_file(tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    original = {}
    for name, tensor in weights.items():
        conv = "attentions" in name and tensor.ndim == 2  # the original has 1x1 convolutions there
        original[original_name(name)] = tensor[:, :, None, None].contiguous() if conv else tensor
    save_file(weights, tmp_path / "diffusers.safetensors")
    save_file(original, tmp_path / "original.safetensors")
    whole = {f"first_stage_model.{name}": tensor for name, tensor in original.items()}
    save_file({**whole, "model.diffusion_model.x": torch.ones(1)}, tmp_path / "whole.safetensors")
    frames = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        expected = kl.encode(frames * 2 - 1).latent_dist.mean * 0.18215
        decoded = (kl.decode(expected / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    for place in ("model", "model/vae", "diffusers.safetensors", "original.safetensors", "whole.safetensors"):
        vae = VAE(tmp_path / place)
        assert vae.channels == 4
        assert torch.allclose(vae.encode(frames, CPU), expected, atol=1e-5), place
        assert torch.allclose(vae.decode(expected), decoded, atol=1e-5), place
    assert len({VAE(tmp_path / place).digest for place in ("diffusers.safetensors", "original.safetensors")}) == 2


def test_the_miniatures_autoencoder_shows_what_it_was_given() -> None:
    frames = torch.from_numpy(draw_frames("fish")[0][:2, :, :48]).permute(0, 3, 1, 2) / 255
    vae = VAE(MODELS / "vae" / "dv2-mini-vae.safetensors")
    latents = vae.encode(frames, CPU)
    assert latents.shape == (2, 24, 6, 6) and vae.channels == 24
    assert (vae.decode(latents) - frames).abs().mean() < 0.05


def test_what_is_no_autoencoder_gets_a_sentence(tmp_path: Path) -> None:
    tiny_kl(levels=3).save_pretrained(tmp_path / "f4")
    with pytest.raises(ValueError, match="scales by 4; one that scales by 8 is needed"):
        VAE(tmp_path / "f4")
    with pytest.raises(ValueError, match="neither a Stable Diffusion VAE nor the miniature's"):
        VAE(MODELS / "text_encoders" / "dv2-mini-text.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"no file")
    with pytest.raises(ValueError, match="x.safetensors is no .safetensors file"):
        VAE(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no config.json of a AutoencoderKL"):
        VAE(tmp_path)


def tiny_clip(folder: Path, layers: int) -> None:
    """A CLIP text encoder with a vocabulary of letters, as the published folders have it."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(n) for n in range(ord("a"), ord("z") + 1)]
    vocabulary = ["!", *letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(vocabulary)}))
    (folder / "raw" / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "raw" / "vocab.json"), str(folder / "raw" / "merges.txt")).save_pretrained(
        folder / "tokenizer"
    )
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=12, eos_token_id=len(vocabulary) - 1,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


@pytest.mark.parametrize("layers", [24, 23])
def test_the_context_is_that_of_the_second_last_layer_of_vit_h_and_of_all_layers_of_the_published_encoder(
    tmp_path: Path, layers: int
) -> None:
    from transformers import CLIPTextModel

    tiny_clip(tmp_path, layers)
    context = TextEncoder(tmp_path).encode(["ab", "", "a very long caption that is cut"], CPU)
    model = CLIPTextModel.from_pretrained(tmp_path / "text_encoder").eval()
    begin, end = 53, 54
    ids = torch.tensor([[begin, 1, 28, end] + [0] * 8, [begin, end] + [0] * 10])  # padded with 0, as OpenCLIP does
    with torch.no_grad():
        expected = model.text_model.final_layer_norm(model(ids, output_hidden_states=True).hidden_states[23])
    assert context.shape == (3, 12, 16)
    assert torch.allclose(context[:2], expected, atol=1e-5)


def test_what_is_no_text_encoder_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no text_encoder/config.json"):
        TextEncoder(tmp_path)
    with pytest.raises(ValueError, match="is not the miniature's text encoder"):
        TextEncoder(MODELS / "vae" / "dv2-mini-vae.safetensors")

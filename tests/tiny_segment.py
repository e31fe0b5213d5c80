"""Grounding DINO and SAM 2 with a few thousand random parameters, as model folders that `transformers` writes.

The shapes and the plumbing are real; what they find is arbitrary but the same in every run.
"""

from pathlib import Path
from typing import Any

import torch

WORDS = ("red", "ball", "dog", "a")

#: Where BERT has them: the network knows the marks between names by these numbers.
BERTS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
SIDE = 128  # of the square that the tiny SAM 2 reads


def save_grounding_dino(folder: Path) -> None:
    import transformers as tf

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = [f"[unused{n}]" for n in range(1030)]
    for word, number in BERTS.items():
        vocabulary[number] = word
    vocabulary = list(dict.fromkeys([*vocabulary, *WORDS, *letters, *("##" + c for c in letters)]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tf.BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    backbone = tf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = {
        "model_type": "bert", "vocab_size": len(vocabulary), "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 256,
    }  # fmt: skip
    config = tf.GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=20,
        num_feature_levels=4, encoder_n_points=2, decoder_n_points=2, use_timm_backbone=False,
    )  # fmt: skip
    network = lively(tf.GroundingDinoForObjectDetection(config))
    network.model.decoder.layer_norm.weight.data.mul_(0.2)  # scores that are neither 0 nor 1
    network.save_pretrained(folder)
    tf.GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 144}).save_pretrained(folder)


def save_sam2(folder: Path) -> None:
    import transformers as tf

    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 16, "num_attention_heads": 1, "image_size": [SIDE, SIDE],
        "patch_kernel_size": [7, 7], "patch_stride": [4, 4], "patch_padding": [3, 3], "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }  # fmt: skip
    vision = {
        "backbone_config": backbone, "backbone_channel_list": [128, 64, 32, 16], "fpn_hidden_size": 128,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_kernel_size": 1,
    }  # fmt: skip
    decoder: dict[str, Any] = {
        "hidden_size": 128, "mlp_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "iou_head_hidden_dim": 32, "attention_downsample_rate": 2,
    }  # fmt: skip
    config = tf.Sam2VideoConfig(
        vision_config=vision, mask_decoder_config=decoder, image_size=SIDE, num_maskmem=3,
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8},
        memory_attention_hidden_size=128, memory_attention_num_layers=1, memory_attention_num_attention_heads=1,
        memory_attention_feed_forward_hidden_size=64, memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64, mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=64, memory_fuser_num_layers=1,
        max_object_pointers_in_encoder=4,
    )  # fmt: skip
    network = lively(tf.Sam2VideoModel(config), seed=2)
    network.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(10.0)  # there is always something
    network.save_pretrained(folder)


def lively(network: Any, seed: int = 1) -> Any:
    """Random weights that keep signals alive through all layers: at the library's own start all outputs are alike."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.normal_(generator=generator)
        parameter.data.mul_(parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    for module in network.modules():
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm)):
            module.weight.data.fill_(1.0)
    return network


def moving_blob(frames: int, height: int, width: int) -> torch.Tensor:
    """[F, H, W, 3]: smooth colours with a bright spot that wanders to the right."""
    generator = torch.Generator().manual_seed(3)
    small = torch.rand(1, 3, 4, 5, generator=generator) * 0.5
    back = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")[0].movedim(0, -1)
    video = back.repeat(frames, 1, 1, 1)
    side = height // 3
    for t in range(frames):
        left = (width - side) * t // max(1, frames - 1)
        video[t, side : 2 * side, left : left + side] = torch.tensor([1.0, 0.2, 0.1])
    return video

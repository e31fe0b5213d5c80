"""CLIP and DINO with a few thousand random parameters, as model folders that `transformers` writes."""

import json
from pathlib import Path

from tests.tiny_segment import lively

SIDE = 32  # of the square that the tiny networks read


def save_clip(folder: Path) -> None:
    import transformers as tf

    folder.mkdir(parents=True)
    letters = [chr(c) for c in range(33, 127)]
    names = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: i for i, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    shape = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 24,
    }  # fmt: skip
    ends = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    config = tf.CLIPConfig(
        text_config={**shape, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 24},
        vision_config={**shape, "image_size": SIDE, "patch_size": 8}, projection_dim=24,
    )  # fmt: skip
    lively(tf.CLIPModel(config)).save_pretrained(folder)


def save_dino(folder: Path) -> None:
    import transformers as tf

    config = tf.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE, patch_size=8
    )
    lively(tf.ViTModel(config, add_pooling_layer=False), seed=4).save_pretrained(folder)

"""Whatever is wrong is said in a sentence, before any step is sampled, and what was made before stays."""

import itertools
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

SEEDS = itertools.count(100)  # a sampler with a new seed is not cached


@pytest.fixture
def steps(lab: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of sampling that have been made."""
    import comfy.utils

    seen: list[int] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, *_, **__: seen.append(value))
    return seen


def refused(lab: Any, steps: list[int], graph: Any, node_id: str, *phrases: str) -> str:
    """The prompt is refused at this node with these phrases and no step; a good prompt then runs on what was made."""
    steps.clear()
    result = lab.run(graph)
    where, sentence = lab.complaint(result)
    assert where == node_id, sentence
    for phrase in phrases:
        assert phrase in sentence, sentence
    assert sentence.rstrip().endswith(".") or "node_errors" in result, sentence
    assert not steps
    done = [node for node, entry in (result.get("cache") or {}).items() if entry is not None]
    good, _ = lab.graph(sampler_steps=1, sampler_seed=next(SEEDS))
    again = lab.run(good)
    assert again["ok"] and steps == [1]
    (cached,) = [data["nodes"] for event, data in again["messages"] if event == "execution_cached"]
    assert {node for node in done if recipe(graph, node) == recipe(good, node)} <= set(cached)
    return sentence


def recipe(graph: Any, node: str) -> Any:
    """A node with all that it is made of."""
    if node not in graph:
        return None
    inputs = graph[node]["inputs"].items()
    made = [(k, (recipe(graph, v[0]), v[1]) if isinstance(v, list) else v) for k, v in inputs]
    return graph[node]["class_type"], made


def test_a_missing_adapter_is_refused_with_the_folder_it_belongs_into(lab: Any, steps: list[int]) -> None:
    graph, ids = lab.graph(adapter_adapter_name="absent.safetensors")
    folder = str(lab.models / "dreamvideo2")
    refused(lab, steps, graph, ids["adapter"], "'absent.safetensors' is not there", "Put the file into", folder)


@pytest.mark.parametrize(
    ("boxes", "phrases"),
    [
        ('{"first": [4, 30, 28', ("not valid JSON", "Accepted:")),
        ("", ("'' is empty", "Accepted:")),
        ("[]", ("empty list", "Accepted:")),
        ('{"first": [NaN, 30, 28, 60], "last": [36, 6, 60, 36]}', ("NaN", "finite")),
        ('{"first": [28, 60, 4, 30], "last": [36, 6, 60, 36]}', ("[28, 60, 4, 30]", "reversed corners", "x1 < x2")),
        ('{"first": [4, 30, 28, 90], "last": [36, 6, 60, 36]}', ("[4, 30, 28, 90]", "leaves the 64x64 canvas", "keep")),
        ("[[4, 30, 28, 60], [4, 30, 28, 60], [4, 30, 28, 60]]", ("3 boxes for 8 frames", "give exactly 8 boxes")),
    ],
    ids=["malformed", "empty text", "empty list", "NaN", "reversed", "outside", "count"],
)  # fmt: skip
def test_bad_boxes_are_refused_before_anything_runs(
    lab: Any, steps: list[int], boxes: str, phrases: tuple[str, ...]
) -> None:
    graph, ids = lab.graph(boxes_boxes=boxes)
    refused(lab, steps, graph, ids["boxes"], *phrases)


def test_a_video_of_no_frames_is_refused(lab: Any, steps: list[int]) -> None:
    graph, ids = lab.graph(boxes_length=0)
    refused(lab, steps, graph, ids["boxes"], "length is 0 frames", "from 1")
    graph, ids = lab.graph(latent_batch_size=0)
    refused(lab, steps, graph, ids["latent"], "0", "min of 1")
    base, adapter = lab.load(), lab.adapter()
    empty = torch.zeros(0, 64, 64)
    with pytest.raises(ValueError, match=r"\[0, 64, 64\].*one per frame"):
        lab.refer(base.model, adapter, base.vae, masks=empty)
    with pytest.raises(ValueError, match=r"\[0, 64, 64\].*one per frame"):
        lab.move(base.positive, base.negative, adapter, masks=empty)
    with pytest.raises(ValueError, match=r"\[0, 24, 8, 8\].*number of frames as batch size"):
        lab.sample(base.model, base.positive, base.negative, {"samples": torch.ones(0, 24, 8, 8)})


@pytest.mark.parametrize(
    ("size", "phrases"),
    [((32, 32, 8), ("8 frames of 32x32", "8 of 64x64", "Resize the mask")), ((64, 64, 5), ("5 frames of 64x64",))],
    ids=["size", "count"],
)
def test_a_mask_video_of_another_size_or_count_is_refused(
    lab: Any, steps: list[int], size: tuple[int, int, int], phrases: tuple[str, ...]
) -> None:
    graph, ids = lab.graph()
    pixels = graph.add("EmptyImage", width=size[0], height=size[1], batch_size=size[2], color=0xFFFFFF)
    mask = graph.add("ImageToMask", image=(pixels, 0), channel="red")
    graph[ids["boxes"]]["inputs"]["mask"] = [mask, 0]
    refused(lab, steps, graph, ids["boxes"], *phrases)


def test_box_text_that_a_mask_replaces_is_not_checked(lab: Any) -> None:
    graph, ids = lab.graph(boxes_boxes="", boxes_length=3, latent_batch_size=3)
    pixels = graph.add("EmptyImage", width=64, height=64, batch_size=3, color=0xFFFFFF)
    mask = graph.add("ImageToMask", image=(pixels, 0), channel="red")
    graph[ids["boxes"]]["inputs"]["mask"] = [mask, 0]
    result = lab.run(graph)
    assert result["ok"]
    assert torch.equal(lab.output(result, ids["boxes"]), torch.ones(3, 64, 64))


def test_sizes_that_come_from_other_nodes_are_checked_when_they_are_known(lab: Any, steps: list[int]) -> None:
    graph, ids = lab.graph()
    pixels = graph.add("EmptyImage", width=32, height=32, batch_size=8, color=0)
    size = graph.add("GetImageSize", image=(pixels, 0))
    for n, name in enumerate(("width", "height", "length")):
        graph[ids["boxes"]]["inputs"][name] = [size, n]
    refused(lab, steps, graph, ids["boxes"], "leaves the 32x32 canvas")


@pytest.mark.parametrize("halves", ["both", "reference", "motion"])
def test_box_masks_of_another_count_than_the_latent_are_refused(lab: Any, steps: list[int], halves: str) -> None:
    graph, ids = lab.graph(latent_batch_size=6)
    if halves == "reference":
        conds = {"positive": [ids["positive"], 0], "negative": [ids["negative"], 0]}
        graph[ids["sampler"]]["inputs"] |= conds
    elif halves == "motion":
        graph[ids["sampler"]]["inputs"]["model"] = [ids["base"], 0]
    refused(lab, steps, graph, ids["sampler"], "6 frames", "8", "batch size of the empty latent to 8")


def test_box_masks_that_differ_between_the_two_halves_are_refused(lab: Any, steps: list[int]) -> None:
    """Four masks would otherwise make two videos of four frames of it for one half."""
    graph, ids = lab.graph()
    few = graph.add("DV2BoxesToMask", **{**graph[ids["boxes"]]["inputs"], "length": 4})
    graph[ids["reference"]]["inputs"]["masks"] = [few, 0]
    refused(lab, steps, graph, ids["sampler"], "4 box masks", "motion encoder 8", "same converter")


@pytest.mark.parametrize(
    ("picture", "phrases"),
    [
        ("empty.png", ("100x80 pixels has no foreground", "alpha channel is empty")),
        ("one-pixel.png", ("1x1 pixels, too small",)),
        ("text.png", ("'text.png' cannot be read as a picture", "Use a PNG")),
        ("absent.png", ("'absent.png' is not in ComfyUI's input folder", "Upload it")),
    ],
)
def test_a_picture_without_a_subject_is_refused(
    lab: Any, steps: list[int], picture: str, phrases: tuple[str, ...]
) -> None:
    from PIL import Image

    folder = Path(lab.engine.base_dir) / "input"
    Image.new("RGBA", (100, 80), (200, 10, 10, 0)).save(folder / "empty.png")
    Image.new("RGBA", (1, 1), (200, 10, 10, 255)).save(folder / "one-pixel.png")
    (folder / "text.png").write_text("no picture\n")
    graph, ids = lab.graph(subject_image=picture)
    refused(lab, steps, graph, ids["subject"], *phrases)


@pytest.mark.parametrize(
    ("width", "height", "mask", "phrases"),
    [
        (1, 1, None, ("1x1 pixels, too small",)),
        (40, 40, None, ("has no foreground",)),
        (40, 40, (20, 20), ("mask has shape [20, 20]", "40 high", "same picture")),
    ],
    ids=["one pixel", "plain", "mask of another size"],
)
def test_a_picture_from_a_graph_without_a_subject_is_refused(
    lab: Any, steps: list[int], width: int, height: int, mask: Any, phrases: tuple[str, ...]
) -> None:
    graph, ids = lab.graph()
    pixels = graph.add("EmptyImage", width=width, height=height, batch_size=1, color=0x336699)
    inputs: dict[str, Any] = dict(image=(pixels, 0), width=64, height=64, invert_mask=False)
    if mask:
        inputs["mask"] = (graph.add("SolidMask", value=1.0, width=mask[0], height=mask[1]), 0)
    prepare = graph.add("DV2PrepareSubject", **inputs)
    graph[ids["reference"]]["inputs"]["subject"] = [prepare, 0]
    refused(lab, steps, graph, prepare, *phrases)


SLOTS = {  # input of the loading node -> (folder, node)
    "base_unet_name": ("diffusion_models", "base"),
    "base_clip_name": ("text_encoders", "base"),
    "base_vae_name": ("vae", "base"),
    "adapter_adapter_name": ("dreamvideo2", "adapter"),
}


@pytest.mark.parametrize("slot", SLOTS)
def test_a_text_file_under_the_name_of_a_model_is_refused(lab: Any, steps: list[int], slot: str) -> None:
    folder, node = SLOTS[slot]
    (lab.models / folder / "text.safetensors").write_text("This is no model at all, but a letter to my aunt.\n")
    graph, ids = lab.graph(**{slot: "text.safetensors"})
    refused(lab, steps, graph, ids[node], "text.safetensors cannot be read as", "hoose another")


@pytest.mark.parametrize("slot", SLOTS)
def test_code_in_a_pickle_is_refused_and_never_run(lab: Any, steps: list[int], slot: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(mark),)

    folder, node = SLOTS[slot]
    name = "code.pth" if slot != "adapter_adapter_name" else "code.safetensors"  # adapters are safetensors only
    with (lab.models / folder / name).open("wb") as file:
        if name.endswith("pth"):
            torch.save({"state_dict": {"input_blocks.0.0.weight": Code()}}, file)
        else:
            pickle.dump(Code(), file)
    graph, ids = lab.graph(**{slot: name})
    refused(lab, steps, graph, ids[node], f"{name} cannot be read as")
    assert not mark.exists()
    if name.endswith("pth"):  # the trap is real: this is what a careless loader does
        torch.load(lab.models / folder / name, weights_only=False)
        assert mark.exists()


def small(*keys: str) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(4, 4) for key in keys}


OTHER_MODELS: dict[str, tuple[Any, str]] = {
    "image UNet": (
        small("input_blocks.0.0.weight", "input_blocks.1.0.in_layers.0.weight", "out.2.bias"),
        "looks like an image UNet",
    ),
    "checkpoint": (
        small("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"),
        "looks like an image UNet",
    ),
    "lora": (small("lora_unet_input_blocks_1_1_proj_in.lora_up.weight"), "looks like a LoRA"),
    "generic lora": (small("diffusion_model.input_blocks.1.1.proj_in.lora_A.weight"), "looks like a LoRA"),
    "diffusers": (small("conv_in.weight", "transformer_in.norm.weight"), "has only a part of such a UNet"),
    "adapter": ("dreamvideo2/tiny.safetensors", "looks like a DreamVideo-2 adapter"),
    "text encoder": ("text_encoders/tiny-text.safetensors", "looks like a text encoder"),
    "vae": ("vae/tiny-vae.safetensors", "looks like a VAE"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_MODELS)
def test_another_kind_of_model_as_base_is_refused_and_named(lab: Any, steps: list[int], kind: str) -> None:
    source, phrase = OTHER_MODELS[kind]
    weights = load_file(lab.models / source) if isinstance(source, str) else source
    name = f"other-{kind.replace(' ', '-')}.safetensors"
    save_file(weights, lab.models / "diffusion_models" / name)
    graph, ids = lab.graph(base_unet_name=name)
    refused(lab, steps, graph, ids["base"], f"{name} is not a ModelScope text-to-video UNet", phrase, "Choose")


def test_a_base_that_lacks_tensors_or_metadata_is_refused(lab: Any, steps: list[int]) -> None:
    folder = lab.models / "diffusion_models"
    weights = load_file(folder / lab.BASE)
    save_file(weights, folder / "no-metadata.safetensors")  # then it must be ModelScopeT2V itself, which it is not
    graph, ids = lab.graph(base_unet_name="no-metadata.safetensors")
    refused(lab, steps, graph, ids["base"], f"no-metadata.safetensors has {len(weights)} tensors", "1480")
    metadata = lab.metadata(folder / lab.BASE)
    save_file({k: v for k, v in weights.items() if k != "out.2.bias"}, folder / "short.safetensors", metadata=metadata)
    graph, ids = lab.graph(base_unet_name="short.safetensors")
    refused(lab, steps, graph, ids["base"], "short.safetensors has", "'out.2.bias'", "download it again")
    save_file(weights, folder / "damaged.safetensors", metadata={"dreamvideo2.unet": '{"model_channels": "wide"}'})
    graph, ids = lab.graph(base_unet_name="damaged.safetensors")
    refused(lab, steps, graph, ids["base"], "metadata of damaged.safetensors", "Get the file again")


@pytest.mark.parametrize("source", ["diffusion_models/tiny-base", "vae/tiny-vae", "dreamvideo2/tiny"])
def test_another_kind_of_model_as_text_encoder_is_refused(lab: Any, steps: list[int], source: str) -> None:
    name = f"not-text-{source.split('/')[1]}.safetensors"
    save_file(load_file(lab.models / f"{source}.safetensors"), lab.models / "text_encoders" / name)
    graph, ids = lab.graph(base_clip_name=name)
    refused(lab, steps, graph, ids["base"], f"{name} is not a text encoder", "Choose")


@pytest.mark.parametrize("source", ["diffusion_models/tiny-base", "text_encoders/tiny-text", "dreamvideo2/tiny"])
def test_another_kind_of_model_as_vae_is_refused(lab: Any, steps: list[int], source: str) -> None:
    name = f"not-vae-{source.split('/')[1]}.safetensors"
    save_file(load_file(lab.models / f"{source}.safetensors"), lab.models / "vae" / name)
    graph, ids = lab.graph(base_vae_name=name)
    refused(lab, steps, graph, ids["base"], f"{name} is not a VAE", "Choose")


@pytest.mark.parametrize("source", ["diffusion_models/tiny-base", "text_encoders/tiny-text", "vae/tiny-vae"])
def test_another_kind_of_model_as_adapter_is_refused(lab: Any, steps: list[int], source: str) -> None:
    name = f"not-adapter-{source.split('/')[1]}.safetensors"
    path = lab.models / f"{source}.safetensors"
    (lab.models / "dreamvideo2" / name).write_bytes(path.read_bytes())
    graph, ids = lab.graph(adapter_adapter_name=name)
    refused(lab, steps, graph, ids["adapter"], f"{name} is not a DreamVideo-2 adapter", "Choose")


def test_an_adapter_cut_short_is_refused(lab: Any, steps: list[int]) -> None:
    folder = lab.models / "dreamvideo2"
    whole = (folder / lab.ADAPTER).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    graph, ids = lab.graph(adapter_adapter_name="cut.safetensors")
    refused(lab, steps, graph, ids["adapter"], "cut.safetensors cannot be read", "cut short")
    lab.relabel(lab.ADAPTER, "lacking.safetensors", keep=lambda key: not key.startswith("controlnet."))
    graph, ids = lab.graph(adapter_adapter_name="lacking.safetensors")
    refused(lab, steps, graph, ids["adapter"], "missing", "controlnet.", "get it again")


def test_an_adapter_for_a_base_of_other_sizes_is_refused_by_both_halves(lab: Any, steps: list[int]) -> None:
    phrases = (f"The adapter {lab.SD_ADAPTER}", "in_channels 4 and not 24", "Choose the adapter")
    graph, ids = lab.graph(adapter_adapter_name=lab.SD_ADAPTER)
    refused(lab, steps, graph, ids["reference"], *phrases)
    graph[ids["sampler"]]["inputs"]["model"] = [ids["base"], 0]
    refused(lab, steps, graph, ids["sampler"], *phrases)


def test_a_base_with_other_weights_is_warned_of_and_runs(
    lab: Any, steps: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    path = lab.models / "diffusion_models" / lab.BASE
    weights = load_file(path)
    for tensor in weights.values():
        tensor *= 1.01
    save_file(weights, path.with_name("finetuned.safetensors"), metadata=lab.metadata(path))
    adapter = lab.adapter()
    adapter.check_base(lab.load().model.model)
    assert "was trained on" not in caplog.text
    adapter.check_base(lab.load(unet="finetuned.safetensors").model.model)
    assert f"The adapter {lab.ADAPTER} was trained on tiny" in caplog.text


def test_a_model_of_another_family_is_refused(lab: Any) -> None:
    other = SimpleNamespace(model_config=SimpleNamespace(unet_config={"model_channels": 320}))
    with pytest.raises(ValueError, match="not a ModelScope text-to-video base.*'Load Video Base"):
        lab.adapter().check_base(other)


def test_a_vae_or_text_encoder_of_another_base_is_refused(lab: Any, steps: list[int]) -> None:
    graph, ids = lab.graph(base_vae_name=lab.SD_VAE)
    refused(lab, steps, graph, ids["reference"], "This VAE makes 4 latent channels", "24", "Connect the VAE")
    graph, ids = lab.graph(base_clip_name=lab.SD_TEXT)
    refused(lab, steps, graph, ids["sampler"], "1024 numbers per token", "32", "text encoder that belongs")


def test_a_latent_of_another_vae_is_refused(lab: Any) -> None:
    base = lab.load()
    with pytest.raises(ValueError, match=r"\[8, 4, 8, 8\].*\[frames, 24, height / 8, width / 8\]"):
        lab.sample(base.model, base.positive, base.negative, {"samples": torch.ones(8, 4, 8, 8)})


def test_after_a_refusal_all_that_was_made_before_is_still_there(lab: Any) -> None:
    good, ids = lab.graph(sampler_steps=1)
    first = lab.run(good)
    bad, _ = lab.graph(sampler_steps=1, boxes_boxes="[]")
    assert not lab.run(bad)["ok"]
    again = lab.run(good)
    (cached,) = [data["nodes"] for event, data in again["messages"] if event == "execution_cached"]
    assert set(cached) == set(good)
    assert lab.output(again, ids["sampler"]) is lab.output(first, ids["sampler"])
    failing, _ = lab.graph(sampler_steps=1, latent_batch_size=6)
    result = lab.run(failing)
    assert not result["ok"]
    (cached,) = [data["nodes"] for event, data in result["messages"] if event == "execution_cached"]
    assert set(cached) == set(good) - {ids["latent"], ids["sampler"], ids["save"]}

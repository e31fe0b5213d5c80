"""Tensor files: the container is told by its content, and what is damaged, hostile or another thing gets a sentence."""

import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dv2_core.checkpoints import convert, read_base, read_weights
from dv2_core.model import UNet3D, UNet3DConfig
from tests.oracles.public import SMALL, randomise

TENSORS = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.arange(7, dtype=torch.float16)}


def same(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == others.keys() and all(torch.equal(v, others[k]) for k, v in ours.items())


def old_torch(weights: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("write", [torch.save, old_torch, save_file], ids=["torch", "torch before 2020", "safetensors"])
def test_the_content_tells_the_container_and_not_the_name(tmp_path: Path, write: Any, mmap: bool) -> None:
    for name in ("w.pth", "w.safetensors", "w.bin"):
        write(TENSORS, tmp_path / name)
        weights, _ = read_weights(tmp_path / name, mmap)
        assert same(weights, TENSORS)


def test_the_wrapper_of_a_training_is_taken_off(tmp_path: Path) -> None:
    torch.save({"state_dict": {**TENSORS, "note": "text"}, "step": 632000, "optimizer": {}}, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth")[0], TENSORS)


def test_a_torch_file_written_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_weights(tmp_path / "w.pth")[0], TENSORS)


def half_of(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_torch(path: Path) -> None:
    torch.save(TENSORS, path)
    half_of(path)


def write_safetensors(path: Path) -> None:
    save_file(TENSORS, path)
    half_of(path)


def write_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 500) + b'{"a": {')


def write_zip(path: Path, name: str = "letter.txt", kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr(name, b"\0" * 100_000)


class Code:
    """Runs when a careless loader unpickles it."""

    def __reduce__(self) -> Any:
        return Path.mkdir, (Path("ran"),)


def write_code(path: Path) -> None:
    torch.save({"state_dict": {"input_blocks.0.0.weight": Code()}}, path)


def write_trap(path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "text": (lambda path: path.write_text("a letter to my aunt\n"), "begins like neither"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html><html>"), "it is a web page"),
    "git pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "gguf": (lambda path: path.write_bytes(b"GGUF\3\0\0\0"), "GGUF"),
    "torch, cut": (write_torch, "cut short at"),
    "safetensors, cut": (write_safetensors, "it is cut short: it has"),
    "header, cut": (write_header, "it ends within its header"),
    "zip": (write_zip, "ZIP archive of something else"),
    "bomb": (lambda path: write_zip(path, "x/data.pkl", zipfile.ZIP_DEFLATED), "compressed archive"),
    "code": (write_code, "never loaded or run"),
    "trap": (write_trap, "claims more numbers than the file holds"),
    "no names": (lambda path: torch.save([1, 2], path), "no weights by name"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_model_gets_a_sentence_that_says_what_it_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, clause = WRONG[kind]
    path = tmp_path / "model.pth"
    write(path)
    with pytest.raises(ValueError) as refusal:
        read_weights(path)
    sentence = str(refusal.value)
    assert sentence.startswith("model.pth cannot be read as model weights: ") and clause in sentence
    assert sentence.endswith("Download it again or choose another file.")
    assert not (tmp_path / "ran").exists()


UNET = {k: v.half() for k, v in randomise(UNet3D(SMALL), seed=3).state_dict().items()}


def converted(weights: dict[str, torch.Tensor], path: Path) -> None:
    """As the converter writes it, with its checksum."""
    import json

    source = path.with_suffix(".source.safetensors")
    save_file(weights, source, metadata={"dreamvideo2.unet": json.dumps(SMALL.to_dict())})
    convert(source, path, "original")


# (how it is written, whether every changed bit of a weight is found)
CONTAINERS: dict[str, tuple[Any, bool]] = {
    "torch": (torch.save, True),
    "converted": (converted, True),
    "safetensors": (save_file, False),
    "torch before 2020": (old_torch, False),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_bits_flipped_and_ends_cut_at_random_are_refused_or_harmless(container: str, tmp_path: Path) -> None:
    """Plain safetensors and old torch files have no checksums: a weight may differ there, but nothing else happens."""
    write, checked = CONTAINERS[container]
    write(UNET, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    generator, refused = random.Random(5), 0
    path = tmp_path / "damaged.safetensors"
    for trial in range(24):
        # Half of the flips near the beginning, where the names are.
        end = len(whole) if trial % 2 else min(len(whole), 40_000)
        at = generator.randrange(end)
        damaged = bytearray(whole)
        damaged[at] ^= 1 << generator.randrange(8)
        path.write_bytes(bytes(damaged) if trial % 4 else whole[:at])
        try:
            base = read_base(path, SMALL)
            assert not checked or same(base.weights, UNET), at
            assert base.config == SMALL and base.prediction == "", at
        except ValueError as error:
            refused += 1
            assert "damaged.safetensors" in str(error) and str(error).rstrip().endswith("."), error
    assert refused >= (18 if checked else 6)


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = {**UNET, "out.2.bias": torch.full_like(UNET["out.2.bias"], value)}
        save_file(broken, tmp_path / "broken.safetensors")
        with pytest.raises(ValueError, match="broken.safetensors is damaged: its tensor 'out.2.bias'.*not finite"):
            read_base(tmp_path / "broken.safetensors", SMALL).check_numbers()
    save_file(UNET, tmp_path / "sound.safetensors")
    read_base(tmp_path / "sound.safetensors", SMALL).check_numbers()


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    key = "input_blocks.1.0.in_layers.2.weight"
    save_file({**UNET, key: UNET[key].to(torch.int8)}, tmp_path / "int8.safetensors")
    with pytest.raises(ValueError, match=r"int8.safetensors holds quantised weights \(int8\)"):
        read_base(tmp_path / "int8.safetensors", SMALL)


@pytest.mark.parametrize(
    "sizes",
    ['{"num_res_blocks": 1000000000}', '{"head_dim": 0}', '{"channel_mult": 3}', "[" * 100_000, '{"wide": 1}', "3"],
)
def test_hostile_sizes_in_the_metadata_are_refused_at_once(sizes: str, tmp_path: Path) -> None:
    save_file(UNET, tmp_path / "sizes.safetensors", metadata={"dreamvideo2.unet": sizes})
    with pytest.raises(ValueError, match="sizes in the metadata of sizes.safetensors cannot be used"):
        read_base(tmp_path / "sizes.safetensors")


def test_an_unknown_prediction_in_the_metadata_is_refused(tmp_path: Path) -> None:
    save_file(UNET, tmp_path / "x.safetensors", metadata={"dreamvideo2.prediction": "x0"})
    with pytest.raises(
        ValueError, match="x.safetensors say that it predicts 'x0'; known are eps, v, v_zsnr, v_cosine_zsnr"
    ):
        read_base(tmp_path / "x.safetensors", SMALL)


def test_the_default_sizes_are_not_taken_for_a_file_of_another_structure(tmp_path: Path) -> None:
    """Heads cannot be told from shapes: without metadata, only the published structure is sure."""
    save_file(UNET, tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=f"small.safetensors has {len(UNET)} tensors where this UNet has 1480"):
        read_base(tmp_path / "small.safetensors")
    assert UNet3DConfig.from_dict({}) == UNet3DConfig.modelscope()

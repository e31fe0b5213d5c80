"""The drawn subjects, and the whole way of one from the picture to the canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dv2_core.drawn import drawn_subjects
from dv2_core.drawn.__main__ import main
from dv2_core.subject import extract_subject, place_on_canvas

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def subjects() -> dict[str, Image.Image]:
    return drawn_subjects()


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.tensor(np.array(picture)).float() / 255


def test_there_are_twelve_subjects_of_256_pixels_with_transparent_border_and_opaque_body(subjects):
    assert len(subjects) == 12
    for name, picture in subjects.items():
        assert picture.mode == "RGBA" and picture.size == (256, 256), name
        alpha = np.array(picture)[..., 3]
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert border.max() == 0, name
        assert 0.12 < (alpha == 255).mean() < 0.75, name


def test_every_call_draws_the_same_and_hands_out_copies(subjects):
    again = drawn_subjects()
    assert all(np.array_equal(np.array(subjects[name]), np.array(again[name])) for name in subjects)
    again["owl"].putalpha(0)
    assert drawn_subjects()["owl"].getchannel("A").getextrema() == (0, 255)


def test_any_two_subjects_differ_clearly_on_the_canvas(subjects):
    canvases = []
    for picture in subjects.values():
        image = tensor(picture)
        canvases.append(place_on_canvas(image[..., :3], image[..., 3], 64, 64)[0])
    for i, a in enumerate(canvases):
        for b in canvases[:i]:
            assert (a - b).abs().mean() > 0.05


def test_keying_a_drawn_subject_from_a_plain_page_finds_its_own_alpha(subjects):
    for name in ("toadstool", "robot", "ladybird", "duck"):
        picture = subjects[name]
        page = Image.new("RGBA", picture.size, (90, 150, 120, 255))
        page.alpha_composite(picture)
        found = extract_subject(tensor(page.convert("RGB")))[1] > 0.5
        true = tensor(picture)[..., 3] > 0.5
        assert (found & true).sum() / (found | true).sum() > 0.97, name


def test_the_command_writes_the_shipped_pictures_under_20_kilobytes(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(path.name for path in printed) == ["fish.png", "robot.png", "toadstool.png"]
    for path in printed:
        assert path.stat().st_size <= 20_000
        shipped = np.array(Image.open(REPO / "models" / "subjects" / path.name)).astype(int)
        # Shading is float arithmetic, which another machine may round to the neighbouring colour step.
        assert np.abs(np.array(Image.open(path)).astype(int) - shipped).max() <= 4


def test_the_command_refuses_an_unknown_name_and_lists_the_known(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path), "unicorn"])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "'unicorn'" in message and "toadstool" in message
    assert list(tmp_path.iterdir()) == []

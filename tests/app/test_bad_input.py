"""What a user gets wrong, through a real server: a sentence before any sampling, and nothing already made is lost."""

import pickle
import re
import sys
from typing import Any

import pytest
from PIL import Image

BOXES = {
    "malformed": '{"first": [4, 20, 24, 40], "last": [40',
    "empty": "[]",
    "not a number": '{"first": [4, NaN, 24, 40], "last": [40, 20, 60, 40]}',
    "reversed corners": '{"first": [24, 20, 4, 40], "last": [40, 20, 60, 40]}',
    "outside the canvas": '{"first": [4, 20, 24, 40], "last": [900, 20, 920, 40]}',
    "three boxes for eight frames": "[[4, 20, 24, 40], [20, 20, 40, 40], [40, 20, 60, 40]]",
}
WIDGETS = {
    "no frames": {"DV2BoxesToMask__length": 0},
    "an adapter that is not there": {"DV2LoadAdapter__adapter_name": "nowhere.safetensors"},
    "an adapter that is a text file": {"DV2LoadAdapter__adapter_name": "text.safetensors"},
    "an adapter that is a pickle with code": {"DV2LoadAdapter__adapter_name": "code.safetensors"},
    "an adapter that is a base": {"DV2LoadAdapter__adapter_name": "base.safetensors"},
    "a base that is a text file": {"DV2LoadBase__unet_name": "text.safetensors"},
    "a subject that is not there": {"DV2LoadSubject__image": "nowhere.png"},
    "a subject that is a text file": {"DV2LoadSubject__image": "text.png"},
    "a subject with no foreground": {"DV2LoadSubject__image": "white.png"},
    "a subject of one pixel": {"DV2LoadSubject__image": "pixel.png"},
    **{f"boxes: {name}": {"DV2BoxesToMask__boxes": text} for name, text in BOXES.items()},
}


class Code:
    """Unpickling this would write the file it is given."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return open, (self.trace, "w")


@pytest.fixture(scope="module")
def bad_files(app):
    """Bad files where a user would put them; a file that exists only if code in a model file was run."""
    base = app.server.base
    for kind in ("dreamvideo2", "diffusion_models"):
        (base / "models" / kind).mkdir(exist_ok=True)
        (base / "models" / kind / "text.safetensors").write_text("This is a text, not a model.\n" * 20)
    trace = base / "code-was-run"
    (base / "models" / "dreamvideo2" / "code.safetensors").write_bytes(pickle.dumps(Code(str(trace))))
    unet = app.pack / "models" / "diffusion_models" / "dv2-mini-base.safetensors"
    (base / "models" / "dreamvideo2" / "base.safetensors").symlink_to(unet)
    (base / "input" / "text.png").write_text("This is a text, not a picture.\n")
    Image.new("RGB", (64, 64), "white").save(base / "input" / "white.png")
    Image.new("RGB", (1, 1), "white").save(base / "input" / "pixel.png")
    return trace


def check_refused(app, prompt: dict[str, Any]) -> None:
    before = app.saved()
    run = app.run(prompt)
    assert run.ending in ("refused", "execution_error")
    assert re.search(r"\w+ \w+ \w+", run.sentence), run.answer
    assert "Traceback" not in run.sentence
    assert not run.executed(app.node("DV2Sampler"))
    assert app.server.get("/queue") == {"queue_running": [], "queue_pending": []}
    assert app.saved() == before


@pytest.mark.parametrize("widgets", WIDGETS.values(), ids=WIDGETS.keys())
def test_it_is_refused_with_a_sentence_before_sampling(app, bad_files, widgets):
    check_refused(app, app.prompt(**widgets))
    assert not bad_files.exists()


@pytest.mark.parametrize(("width", "height"), [(32, 32), (64, 64)], ids=["another size", "another count"])
def test_a_mask_that_does_not_fit_the_video_is_refused_with_a_sentence(app, width, height):
    prompt = app.prompt()
    prompt["900"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": width, "height": height}}
    prompt[app.node("DV2BoxesToMask")]["inputs"]["mask"] = ["900", 0]
    check_refused(app, prompt)


def test_after_all_of_this_the_same_server_still_makes_a_video(app):
    run = app.run(app.prompt(DV2Sampler__seed=sys.maxsize))
    assert run.ending == "execution_success"

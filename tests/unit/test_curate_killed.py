"""kill -9 anywhere: what a curation leaves is the same as if nothing had happened."""

import os
import random
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from dv2_core.curate.run import curate
from tests.curation import NAMES, contents, settings, write_folder

KILLS = 50
CURATION = str(Path("dv2_core", "curate"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips to keep, one to reject, and what is no video."""
    folder = write_folder(tmp_path_factory.mktemp("videos"), NAMES[:3], still=NAMES[2])
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def killed_after(lines: int, folder: Path, out: Path) -> bool:
    """Curate in a process of its own that is killed after running so many lines of the package; False: it ended."""
    child = os.fork()
    if child == 0:
        left = lines

        def count(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            left -= event == "line"
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return count

        code = 1
        try:
            sys.stderr = open(os.devnull, "w")
            sys.settrace(lambda frame, event, argument: count if CURATION in frame.f_code.co_filename else None)
            curate(settings(folder, shards=1, audit=2), out)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_fifty_kills_at_random_lines_change_no_byte_of_the_data_set(folder: Path, tmp_path: Path) -> None:
    curate(settings(folder, shards=1, audit=2), tmp_path / "undisturbed")
    expected = contents(tmp_path / "undisturbed")
    assert {"clips.jsonl", "counts.json", "audit.html", "shards/clips-00001.tar"} < set(expected)
    draws, kills, finished = random.Random(7), 0, 0
    while kills < KILLS:
        out = tmp_path / f"disturbed{finished}"
        if killed_after(int(10 ** draws.uniform(1.5, 4.2)), folder, out):
            kills += 1
        else:
            assert contents(out) == expected
            finished += 1
    curate(settings(folder, shards=1, audit=2), tmp_path / f"disturbed{finished}")
    assert contents(tmp_path / f"disturbed{finished}") == expected
    assert finished >= 3, finished


def test_a_damaged_state_is_made_anew(folder: Path, tmp_path: Path) -> None:
    curate(settings(folder), tmp_path)
    expected = contents(tmp_path)
    for file in (tmp_path / "state").rglob("*.json"):
        file.write_bytes(file.read_bytes()[:-20])
    curate(settings(folder), tmp_path)
    assert contents(tmp_path) == expected

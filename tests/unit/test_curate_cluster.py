"""Curation on a cluster: two Ray nodes on this machine, and kill -9 of the command, of a worker and of a whole node."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dv2_core.__main__ import main
from dv2_core.drawn import subject_names
from tests.curation import SHORT, contents, run, write_folder

REPO = Path(__file__).resolve().parents[2]
COPIES = 4
CLIPS = COPIES * len(subject_names())
LONGEST = 300  # seconds that anything here may take


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Ray listens on 127.0.0.1 only, and what it writes lies in a folder with a short name: sockets allow no other."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        for name, value in {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield dict(os.environ)


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for _ in range(2):  # the first is the head, to which the command connects
        cluster.add_node(num_cpus=2, object_store_memory=80 * 1024**2, include_dashboard=False)
    yield cluster
    cluster.shutdown()


def until(true: Callable[[], bool], command: "subprocess.Popen[bytes]") -> None:
    """Wait, while the command runs."""
    start = time.monotonic()
    while not true():
        assert command.poll() is None, "the command ended too early"
        assert time.monotonic() - start < LONGEST
        time.sleep(0.05)


def finished(out: Path) -> dict[Path, int]:
    """{state of a clip that went through all its stages: when it was written last}"""
    files = (file for file in (out / "state").rglob("*.json") if b'"motion"' in file.read_bytes())
    return {file: file.stat().st_mtime_ns for file in files}


def processes(node: Any) -> list[psutil.Process]:
    """All of a node, its raylet last."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [*raylet.children(recursive=True), raylet]


def workers(cluster: Any) -> list[psutil.Process]:
    """The processes that take clips through their stages; Ray names them after what they run."""
    found = [process for node in (cluster.head_node, *cluster.worker_nodes) for process in processes(node)]
    return [process for process in found if "ClipWorker" in process.name() + " ".join(process.cmdline())]


def test_a_killed_command_worker_and_node_change_no_byte_and_no_finished_clip_is_done_again(
    cluster: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    folder, out = tmp_path / "videos", tmp_path / "many"
    for copy in range(COPIES):
        write_folder(folder / str(copy), list(subject_names()), still=subject_names()[copy])
    (folder / "broken.mp4").write_bytes(b"no video")
    run(folder, tmp_path / "one", batch=1, audit=2)
    (tmp_path / "own.toml").write_text(
        f'source = "{folder}"\nbatch = 1\naudit = 2\n[split]\nmin_seconds = {SHORT["min_seconds"]}\n'
        f"max_seconds = {SHORT['max_seconds']}\n"
    )

    def start() -> "subprocess.Popen[bytes]":
        command = ["-m", "dv2_core", "curate", str(tmp_path / "own.toml"), "--out", str(out)]
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *command, "--ray", cluster.address], env=environment, cwd=REPO, stdout=log, stderr=log
            )

    first = start()
    until(lambda: len(finished(out)) >= CLIPS // 6, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = finished(out)
    assert len(done) < CLIPS // 3
    second = start()
    until(lambda: len(finished(out)) >= CLIPS // 3 and bool(workers(cluster)), second)
    workers(cluster)[0].send_signal(signal.SIGKILL)
    until(lambda: len(finished(out)) >= CLIPS // 2, second)
    (node,) = cluster.worker_nodes
    for process in processes(node):
        process.send_signal(signal.SIGKILL)
    assert len(finished(out)) < CLIPS
    assert second.wait(LONGEST) == 0, (tmp_path / "log").read_text()
    assert done.items() <= finished(out).items()
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_told_at_once(address: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "videos", subject_names()[:1])
    with pytest.raises(SystemExit, match=f"There is no Ray cluster at '{address}' .* give HOST:PORT of its head"):
        main(["curate", str(tmp_path / "videos"), "--out", str(tmp_path / "out"), "--ray", address])

"""A training that is killed, stopped, or finds its checkpoint damaged; and one of two processes."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dv2_core.train import checkpoint
from dv2_core.train.checkpoint import Checkpoints
from dv2_core.train.config import TrainConfig
from dv2_core.train.loop import Run, only_training, train

REPO = Path(__file__).resolve().parents[2]

# Dies for good in the middle of writing the checkpoint of step 3.
KILLED = """
import io, os, signal, sys
from pathlib import Path
import torch
from dv2_core.train.config import TrainConfig
from dv2_core.train.loop import train

save = torch.save

def interrupted(state, file):
    if state["step"] != 3:
        return save(state, file)
    whole = io.BytesIO()
    save(state, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = interrupted
train(TrainConfig.load(sys.argv[1]), Path(sys.argv[2]))
"""

# Run by each of two processes: a training in one go, and in two parts.
TWO = """
import sys
from pathlib import Path
from accelerate import PartialState
from dv2_core.train.config import TrainConfig
from dv2_core.train.loop import train

config, out = TrainConfig.load(sys.argv[1]), Path(sys.argv[2])
train(config, out / "whole")
train(config, out / "parts", stop_after=2)
train(config, out / "parts")
assert PartialState().num_processes == 2
PartialState().destroy_process_group()
"""


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    process = start(*arguments)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def state_of(out: Path) -> dict[str, Any]:
    state = Checkpoints(out / "checkpoints").latest()
    assert state is not None
    return state


def same_weights(first: Path, second: Path) -> bool:
    one, two = state_of(first), state_of(second)
    return all(torch.equal(one[part][k], two[part][k]) for part in ("weights", "ema") for k in one[part])


def losses(out: Path) -> list[float]:
    return [json.loads(row)["loss"] for row in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def every_step(tiny_toml: Path, tmp_path: Path) -> Path:
    """The tiny training with a checkpoint after every step."""
    (tmp_path / "own.toml").write_text(f'extends = "{tiny_toml.as_posix()}"\nsave_steps = 1\n')
    return tmp_path / "own.toml"


def test_a_kill_in_the_middle_of_writing_a_checkpoint_costs_one_step_and_changes_nothing(
    every_step: Path, tmp_path: Path
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    done = run(tmp_path / "killed.py", every_step, tmp_path / "killed")
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert names == ["step-00000001.pt", "step-00000002.pt", "step-00000003.tmp"]
    config = TrainConfig.load(every_step)
    train(config, tmp_path / "killed")
    train(config, tmp_path / "whole")
    assert same_weights(tmp_path / "killed", tmp_path / "whole")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert names == ["step-00000003.pt", "step-00000004.pt"]


@pytest.mark.parametrize("damage", ["cut short", "one bit"])
def test_a_damaged_checkpoint_is_left_for_the_one_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, {"weights": {"w": torch.full((500,), float(step))}})
    assert [path.name for path in checkpoints.files()] == ["step-00000003.pt", "step-00000002.pt"]
    content = bytearray((tmp_path / "step-00000003.pt").read_bytes())
    at = content.index(torch.full((8,), 3.0).numpy().tobytes())
    content[at + 100] ^= 1
    (tmp_path / "step-00000003.pt").write_bytes(content[: at + 50] if damage == "cut short" else content)
    state = checkpoints.latest()
    assert state is not None and state["step"] == 2 and state["weights"]["w"][0] == 2.0
    assert "step-00000003.pt does not read back" in capsys.readouterr().out
    (tmp_path / "step-00000002.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 2 checkpoints"):
        checkpoints.latest()


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"step": 1, "weights": Harmful()}, tmp_path / "step-00000001.pt")
    with pytest.raises(ValueError, match="does not read back"):
        checkpoint.read_checkpoint(tmp_path / "step-00000001.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_with_everything_saved(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:  # fmt: skip
    write_figures = Run.write_figures

    def interrupted(self: Run, *arguments: Any) -> None:
        if self.step == 2:
            signal.raise_signal(number)
        write_figures(self, *arguments)

    monkeypatch.setattr(Run, "write_figures", interrupted)
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        train(dataclasses.replace(tiny_config, save_steps=1), tmp_path)
    assert stopped.value.code == 128 + number and signal.getsignal(number) == handler
    assert f"{number.name}: stopped after step 2 of 4" in capsys.readouterr().out
    assert state_of(tmp_path)["step"] == 2 and len(losses(tmp_path)) == 2
    assert (tmp_path / "export" / "dv2-mini-adapter.safetensors").exists()


def test_a_checkpoint_of_another_training_is_refused_with_a_sentence(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, steps=1)
    train(config, tmp_path)
    text = dataclasses.replace(config.text, layers=2)
    with pytest.raises(ValueError, match=r"belongs to a training of another config: text\..* learns only here"):
        train(dataclasses.replace(config, text=text), tmp_path)
    adapter = dataclasses.replace(config.adapter, encoder_channels=(8, 8, 8, 16))
    with pytest.raises(ValueError, match=r"adapter\.motion\.encoder\..* is \[8.*\] there and \[16.*\] here"):
        train(dataclasses.replace(config, adapter=adapter), tmp_path)
    with pytest.raises(ValueError, match="made with optimizer 'adamw' and the config says 'muon'"):
        train(dataclasses.replace(config, optimizer="muon"), tmp_path)


def test_a_folder_that_another_training_writes_to_is_refused_until_that_ends(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, steps=1)
    with only_training(tmp_path, main=True):
        with pytest.raises(ValueError, match="another training runs in .*; wait for its end, or give another --out"):
            train(config, tmp_path)
        with only_training(tmp_path, main=False):  # a further process of that training
            pass
    train(config, tmp_path)
    assert len(losses(tmp_path)) == 1


def test_two_nodes_learn_what_one_process_learns(tiny_toml: Path, tmp_path: Path) -> None:
    """Two launchers that meet by an address, each with one process, as on two machines; the folder is shared."""
    (tmp_path / "own.toml").write_text(f'extends = "{tiny_toml.as_posix()}"\ntotal_batch = 4\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ("--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port))
    training = ("-m", "dv2_core", "train", tmp_path / "own.toml", "--out", tmp_path / "nodes")
    nodes = [start("-m", "torch.distributed.run", *meeting, "--node_rank", str(n), *training) for n in range(2)]
    for node in nodes:
        _, errors = node.communicate()
        assert node.returncode == 0, errors
    train(TrainConfig.load(tmp_path / "own.toml"), tmp_path / "alone")
    assert losses(tmp_path / "nodes") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    assert len(losses(tmp_path / "nodes")) == 4 and state_of(tmp_path / "nodes")["step"] == 4


def test_two_processes_resume_bitwise_and_learn_what_one_process_learns(tiny_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f'extends = "{tiny_toml.as_posix()}"\ntotal_batch = 4\n')
    (tmp_path / "two.py").write_text(TWO)
    done = run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "two.py",
               tmp_path / "own.toml", tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    train(TrainConfig.load(tmp_path / "own.toml"), tmp_path / "alone")  # two passes in the place of two processes
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)

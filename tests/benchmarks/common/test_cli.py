"""Errors of command lines name the option that gave a path."""

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import command_line, device
from benchmarks.common.cli import command_name


def failing(error: Exception) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def said(main: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        command_line(main)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and len(text.splitlines()) == 1
    return text.rstrip()


@pytest.mark.parametrize(
    ("argv", "error", "expected"),
    [
        ("--out dir", IsADirectoryError(21, "Is a directory", "dir"), "--out dir: "),
        ("--out=dir", IsADirectoryError(21, "Is a directory", "dir"), "--out dir: "),
        ("--k 3 --root a/b", FileNotFoundError(2, "None", "a/b/c/d"), "--root a/b: "),
        ("--out ./file/x", FileExistsError(17, "Exists", "file"), "--out ./file/x: "),
        ("--dataset .", FileNotFoundError("'./raw' is missing"), "--dataset .: "),
        ("--in a --out a/b", ValueError("'a' is empty"), "--in a: "),
        ("--names u v", ValueError("There is no 'v'"), "--names v: "),
        ("--dataset . --out o", ValueError("Expected 'x' of shape [1]"), ""),
        ("--model mlp", ValueError("'--model' is 'mlp'"), ""),
        ("file", ValueError("'file' is empty"), ""),
        ("", ValueError("'file' is empty"), ""),
    ],
)
def test_the_option_of_a_path_is_named(
    argv: str,
    error: Exception,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *argv.split()])
    assert said(failing(error), capsys) == f"{command_name()}: error: {expected}{error}"


SHORT = "--num_splits 1 --num_inits 1 --max_epochs 1 --layer_num 1"


@pytest.mark.parametrize(
    ("module", "flags", "option"),
    [
        ("benchmarks.nodes.command", f"--dataset graph.npz {SHORT} --settings dir", "--settings"),
        ("benchmarks.nodes.command", f"--dataset graph.npz {SHORT} --out dir", "--out"),
        ("benchmarks.nodes.command", f"--dataset graph.npz {SHORT} --out file/x", "--out"),
        ("benchmarks.nodes.command", f"--dataset . {SHORT}", "--dataset"),
        ("benchmarks.nodes.command", f"--dataset none.npz {SHORT}", "--dataset"),
        ("benchmarks.tune", "--dataset graph.npz --out dir", "--out"),
        ("benchmarks.tune", "--dataset graph.npz --out o --write --settings dir", "--settings"),
        ("benchmarks.ogb.command", "--dataset .", "--dataset"),
        ("benchmarks.ogb.command", "--dataset ogbn-arxiv --root file", "--root"),
        ("benchmarks.ogb.features", "--dataset . --num_steps 1 --out o.npy", "--dataset"),
        ("benchmarks.ogb.make", "--shape arxiv --out file/x", "--out"),
        ("benchmarks.make_graphs", "--out file", "--out"),
        ("benchmarks.speed.picture", "--out dir", "--out"),
        ("fewshot.train", "--dataset mini --backbone conv4 --features dir", "--features"),
        (
            "fewshot.train_backbone",
            "--dataset mini --backbone conv4 --data_root dir",
            "--data_root",
        ),
        ("fewshot.embed", "--checkpoint dir", "--checkpoint"),
        ("toys.two_moon", "--out file/x", "--out"),
    ],
)
def test_commands(
    module: str,
    flags: str,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    y, nodes = np.arange(300) % 3, np.arange(300)
    edge_index = np.stack([nodes, (nodes + 1) % 300])
    np.savez("graph.npz", x=np.eye(3)[y], y=y, edge_index=edge_index)
    Path("dir").mkdir()
    Path("file").write_text("text")
    before = {*tmp_path.rglob("*")}
    monkeypatch.setattr(sys, "argv", ["command", *flags.split()])
    text = said(importlib.import_module(module).main, capsys)
    value = flags.split()[flags.split().index(option) + 1]
    assert f": error: {option} {value}: " in text
    assert {*tmp_path.rglob("*")} == before, "nothing half written"


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        ("benchmarks.nodes.command", "--dataset g --split masks --num_train 5", "'--num_train'"),
        ("benchmarks.nodes.command", "--dataset g --split fractions --num_val 5", "'--num_val'"),
        ("benchmarks.nodes.command", "--dataset g --split development --num_val 5", "'--num_val'"),
        ("benchmarks.nodes.command", "--dataset g --fractions .5 .2", "'--fractions'"),
        ("benchmarks.make_graphs", "--out o --kind tuning --graphs wine", "'--kind'"),
        ("fewshot.train", "--dataset a --backbone b --method tim --step_size 1", "'--step_size'"),
        ("fewshot.train", "--dataset a --backbone b --method heat --knn 5", "'--knn'"),
        ("fewshot.train", "--dataset a --backbone b --lamda 5", "'--lamda'"),
        ("fewshot.train", "--dataset a --backbone b --method propagation --mu 5", "'--mu'"),
        ("toys.two_moon", "--no_diffusion --sigma 2", "'--sigma'"),
        ("toys.xor", "--no_diffusion --steps 5", "'--steps'"),
    ],
)
def test_options_without_effect_are_refused(
    module: str,
    flags: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", *flags.split()])
    text = said(importlib.import_module(module).main, capsys)
    assert f"{message} has no effect with '--" in text
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["meta", "cuda:77", "tpu", ""])
def test_devices_that_do_not_compute_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'--device' '{name}' is no device here"):
        device(name)
    assert device("cpu").type == "cpu"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_gets_the_last_line(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    command_line(lambda: print("93.10 ± 0.20 % of 3 × 5, −1 to ’ 水"))
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    expected = {
        "ascii": "93.10 +- 0.20 % of 3 x 5, -1 to ' ?",
        "latin-1": "93.10 ± 0.20 % of 3 × 5, -1 to ' ?",
        "utf-8": "93.10 ± 0.20 % of 3 × 5, −1 to ’ 水",
    }
    assert text.strip() == expected[encoding]

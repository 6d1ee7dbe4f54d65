"""``benchmarks.nodes``: any graph, any splits, any model."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch_geometric.nn import GCNConv

from benchmarks import tune
from benchmarks.common import command_line, draw_trials, read_rows
from benchmarks.common.splits import (
    fraction_split,
    leave_out_small_classes,
    mask_splits,
    per_class_split,
)
from benchmarks.flags import SETTINGS
from benchmarks.nodes import command
from benchmarks.nodes.graphs import file_name
from benchmarks.nodes.models import METHODS
from benchmarks.nodes.settings import FOLDER, load_settings

SIZES = (90, 80, 12, 70)  # nodes of the classes, one of them small


class Net(torch.nn.Module):
    """A user's own model."""

    def __init__(self, features: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(features, width), GCNConv(width, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def not_a_model(features: int, classes: int) -> str:
    return "no model"


OWN = f"{__name__}:Net"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(4), SIZES))
    x = rng.standard_normal((len(y), 10)) + 2 * np.eye(4, 10)[y]
    ring = np.stack([np.arange(len(y)), (np.arange(len(y)) + 1) % len(y)])
    pairs = rng.integers(0, len(y), (2, 3000))
    pairs = pairs[:, y[pairs[0]] == y[pairs[1]]]
    path = tmp_path_factory.mktemp("nodes") / "mine.npz"
    part = rng.permutation(len(y))[:, None].repeat(2, axis=1)
    masks = {
        "train_mask": part < 60,
        "val_mask": (part >= 60) & (part < 120),
        "test_mask": part > 119,
    }
    np.savez(path, x=x, y=y, edge_index=np.concatenate([ring, pairs], axis=1), **masks)
    return path


def run(graph: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    command.main(["--dataset", str(graph), "--max_epochs", "5", "--out", str(out), *flags])
    return read_rows(out)


def test_classes_too_small_are_left_out_and_named(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = run(graph, tmp_path / "out.jsonl", "--num_splits", "2")
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "classes of fewer than 51 nodes neither train nor test: 2 (12 nodes)"
    assert len(rows) == 2 and rows[0]["dataset"] == "mine" and rows[0]["source"] == ".npz"
    assert rows[0]["split_kind"].endswith(
        "largest component, classes of fewer than 51 nodes left out"
    )
    assert rows[0]["form"] == "raw features, undirected"
    count = 90 + 80 + 70 - 3 * 50
    assert rows[0]["test_acc"] * count == pytest.approx(
        round(rows[0]["test_acc"] * count), abs=1e-4
    )


@pytest.mark.parametrize(
    ("flags", "splits", "kind"),
    [
        (
            ["--num_train", "3", "--num_val", "4", "--num_splits", "3"],
            3,
            "random, 3 train and 4 val",
        ),
        (
            ["--split", "fractions", "--fractions", ".5", ".25", "--num_splits", "2"],
            2,
            "50 % train",
        ),
        (["--split", "masks"], 2, "masks of the graph"),
        (["--split", "masks", "--num_splits", "1", "--num_inits", "3"], 1, "masks of the graph"),
        (["--component", "all", "--directed", "--num_splits", "1"], 1, "all components"),
    ],
)
def test_splits_and_forms(
    graph: Path, tmp_path: Path, flags: list[str], splits: int, kind: str
) -> None:
    rows = run(graph, tmp_path / "out.jsonl", *flags)
    assert len({row["split"] for row in rows}) == splits and kind in rows[0]["split_kind"]
    assert len(rows) == splits * (3 if "--num_inits" in flags else 1)
    assert ("directed" in rows[0]["form"].split()) == ("--directed" in flags)


def test_every_model_runs_by_the_default_settings(graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchdiffeq", reason="torchdiffeq")
    for name in METHODS:
        rows = run(graph, tmp_path / "out.jsonl", "--model", name, "--num_splits", "1", "--resume")
    assert len(rows) == len(METHODS) and min(row["test_acc"] for row in rows) > 0.25


def test_a_graph_of_its_own_name_or_the_defaults() -> None:
    assert file_name("Amazon:Photo") == "amazon-photo"
    assert load_settings("cora", "gcn") != load_settings("mine", "gcn")
    assert not (FOLDER / "mine.toml").exists()


def test_a_model_of_the_user_and_a_settings_file(graph: Path, tmp_path: Path) -> None:
    settings = tmp_path / "mine.toml"
    settings.write_text(f'["{OWN}"]\nwidth = 3\nlr = 0.5\n[gcn]\nhidden = 4\ndropout = 0.1\n')
    out = tmp_path / "out.jsonl"
    flags = ["--num_splits", "2", "--model", OWN]
    run(graph, out, *flags)
    run(graph, out, *flags[:2], "--settings", str(settings), "--model", "gcn", "--resume")
    ours, theirs = (read_rows(out)[i]["settings"] for i in (0, 2))
    assert ours == {"lr": 0.01, "weight_decay": 5e-4, "max_epochs": 5, "patience": 50}
    assert theirs["hidden"] == 4 and {row["model"] for row in read_rows(out)} == {OWN, "gcn"}
    rows = run(graph, tmp_path / "b.jsonl", *flags, "--settings", str(settings))
    assert rows[0]["settings"]["width"] == 3 and rows[0]["settings"]["lr"] == 0.5
    assert set(SETTINGS) >= {"lr"}


def test_several_models_are_compared_on_the_same_splits(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--num_splits", "3", "--hidden", "4", "--model", "mlp", "gcn", OWN]
    rows = run(graph, tmp_path / "out.jsonl", *flags)
    assert [row["model"] for row in rows] == ["mlp"] * 3 + ["gcn"] * 3 + [OWN] * 3
    assert len({(row["split"], row["split_seed"]) for row in rows}) == 3
    assert "hidden" not in rows[-1]["settings"] and rows[0]["settings"]["hidden"] == 4
    told = capsys.readouterr().out.splitlines()
    differences = 100 * np.array([rows[i]["test_acc"] - rows[3 + i]["test_acc"] for i in range(3)])
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    [line] = [line for line in told if line.startswith("| mine | .npz | gcn |")]
    assert line.endswith(f"| {differences.mean():+.2f} ± {(high - low) / 2:.2f} (3) |")
    again = run(graph, tmp_path / "out.jsonl", *flags, "--resume", "--format", "csv")
    assert again == rows
    told = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mine,.npz,gcn,") and "(3)" in line for line in told)
    with pytest.raises(ValueError, match=r"has no setting \['hidden'\]"):
        run(graph, tmp_path / "b.jsonl", "--hidden", "4", "--model", OWN, "sgc")


def test_a_metric_is_compared_too(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn")
    flags = ["--num_splits", "2", "--model", "mlp", "sgc", "--metric", "f1"]
    rows = run(graph, tmp_path / "out.jsonl", *flags, "--format", "latex")
    told = capsys.readouterr().out
    gain = 100 * np.mean([rows[i]["test_f1"] - rows[2 + i]["test_f1"] for i in range(2)])
    assert rf"& {gain:+.2f} $\pm$ " in told and r"test f1, \%" in told and r"\toprule" in told


def test_a_settings_file_may_be_partial(graph: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[gcn]\nhidden = 5\n")
    flags = ["--num_splits", "1", "--model", "gcn", "sgc", "--settings", str(file)]
    rows = run(graph, tmp_path / "out.jsonl", *flags)
    usual = {name: load_settings("mine", name) for name in ("gcn", "sgc")}
    assert rows[0]["settings"] == {**usual["gcn"], "hidden": 5, "max_epochs": 5}
    assert rows[1]["settings"] == {**usual["sgc"], "max_epochs": 5}


def tuned(graph: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    pytest.importorskip("optuna", reason="optuna")
    always = ["--dataset", str(graph), "--trials", "2", "--num_splits", "2", "--max_epochs", "3"]
    tune.main([*always, "--num_train", "5", "--num_val", "3", "--out", str(out), *flags])
    return read_rows(out)


def test_any_model_is_tuned(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = tuned(graph, tmp_path / "own.jsonl", "--model", OWN)
    assert first["params"] == {"width": 8, "lr": 0.01, "weight_decay": 5e-4}
    assert 2 <= second["params"]["width"] <= 32 and second["settings"]["patience"] == 50
    assert f'["{OWN}"]' in capsys.readouterr().out
    for name in ("gcn", "label-propagation", "appnp"):
        first, _ = tuned(graph, tmp_path / f"{name}.jsonl", "--model", name)
        usual = {"binary": False, **load_settings("mine", name)}
        assert {**usual, **first["params"]} == usual and len(first["params"]) >= 2

    space = tmp_path / "space.toml"
    space.write_text("width = [2, 3]\nlr = {low = 1e-3, high = 0.1, log = true}\n")
    target = tmp_path / "found.toml"
    flags = ["--model", OWN, "--space", str(space), "--write", "--settings", str(target)]
    rows = tuned(graph, tmp_path / "space.jsonl", *flags)
    assert all({*row["params"]} == {"width", "lr"} for row in rows)
    assert load_settings("mine", OWN, target)["width"] in (2, 3)
    for text, message in (
        ("wings = [1]", r"has no setting \['wings'\]"),
        ("width = 3", "to be a list of choices"),
        ("width = {low = 5, high = 2}", "to be a list of choices"),
        ("width = []", "to be a list of choices"),
    ):
        space.write_text(text)
        with pytest.raises(ValueError, match=message):
            tuned(graph, tmp_path / "no.jsonl", "--model", OWN, "--space", str(space))


def test_tune_writes_the_settings_of_any_graph(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("optuna", reason="optuna")
    target, out = tmp_path / "found.toml", tmp_path / "tune.jsonl"
    flags = [
        "--dataset",
        str(graph),
        "--model",
        "diff-linear",
        "--trials",
        "2",
        "--num_splits",
        "2",
    ]
    flags += ["--num_train", "5", "--num_val", "3", "--max_epochs", "3", "--out", str(out)]
    tune.main([*flags, "--write", "--settings", str(target)])
    assert "classes of fewer" not in capsys.readouterr().out
    assert load_settings("mine", "diff-linear", target)["layer_num"] > 0
    assert "5 train and 3 val per class" in read_rows(out)[0]["split_kind"]
    rows = run(
        graph, tmp_path / "o.jsonl", "--model", "diff-linear", "--settings", str(target),
        "--num_splits", "1",
    )  # fmt: skip
    assert (
        rows[0]["settings"]["step_size"]
        == load_settings("mine", "diff-linear", target)["step_size"]
    )


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "coral"], "no graph 'coral'"),
        (["--dataset", ""], "Expected the name of a graph, a file or a folder (got '')"),
        (["--dataset", "  "], "Expected the name of a graph, a file or a folder (got ' ')"),
        (["--out", ""], "--out: expected a path (got '')"),
        (["--settings", " "], "--settings: expected a path (got ' ')"),
        (["--data_root", ""], "--data_root: expected a path (got '')"),
        (["--dataset", "none.npz"], "'none.npz' does not exist"),
        (["--dataset", "cora"], "lacks ind.cora.x"),
        (["--dataset", "pubmed", "--source", "shchur"], "lacks pubmed.npz"),
        (["--dataset", "Amazon:Photo"], "lacks amazon_electronics_photo.npz"),
        (["--dataset", "ogbn-arxiv"], "ogbn_arxiv/raw' does not exist"),
        (["--words", "few"], "invalid choice: 'few'"),
        (["--component", "some"], "invalid choice: 'some'"),
        (["--num_train", "0"], "'--num_train' and '--num_val' of at least 1"),
        (["--num_train", "500"], "at least 2 classes of 531 nodes"),
        (["--split", "fractions", "--fractions", "0.7", "0.4"], "sum to less than 1"),
        (["--split", "masks", "--num_splits", "3"], "at most 2 splits"),
        (["--split", "masks", "--dataset", "digits"], "no 'train_mask'"),
        (["--split", "development"], "'num_development' between 1 and 251"),
        (["--num_splits", "0"], "positive number"),
        (["--directed", "--model", "appnp"], "needs an undirected graph"),
        (["--source", "shchur"], "A 'source' is for cora"),
        (["--model", "gnc"], "no model 'gnc'"),
        (["--model", "nowhere:Net"], "'nowhere:Net' cannot be imported"),
        (["--model", "torch:nothing"], "'torch:nothing' cannot be imported"),
        (["--model", "torch:pi"], "'torch:pi' cannot be built"),
        (["--model", f"{__name__}:not_a_model"], "'torch.nn.Module' (got a str)"),
        (["--model", "torch_geometric.nn:GCN"], "'--model' cannot be built of"),
        (["--settings", "none.toml"], "none.toml"),
        (["--settings", lambda p: write(p / "a.toml", "no toml")], "a.toml' is no settings file"),
        (["--settings", lambda p: write(p / "a.toml", "lr = 1")], "expected a table a model"),
        (["--settings", lambda p: write(p / "a.toml", "[gnc]")], "of ['gnc'], which are no models"),
        (
            ["--settings", lambda p: write(p / "a.toml", "[gcn]")],
            "no settings of model 'diff-resnet'",
        ),
        (
            ["--model", "gcn", "--settings", lambda p: write(p / "a.toml", "[gcn]\nwings = 2")],
            "no setting ['wings']",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    graph: Path,
    flags: list[Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in tests")

    flags = [flag(tmp_path) if callable(flag) else flag for flag in flags]
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("fsspec.open", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_ROOT", "data")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit_:
        command_line(lambda: command.main(["--dataset", str(graph), *flags]))
    error, code = capsys.readouterr().err, exit_.value.code
    del exit_
    gc.collect()  # what the end of the process does: no frame holds the file of results
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_unlabeled_nodes_are_in_no_part() -> None:
    y = torch.tensor([0, 1, -1] * 40)
    parts = per_class_split(y, 3, num_train=5, num_val=5)
    assert [len(part) for part in parts] == [10, 10, 60] and all((y[p] >= 0).all() for p in parts)
    parts = fraction_split(y, 3, 0.5, 0.25)
    assert [len(part) for part in parts] == [40, 20, 20]
    assert torch.cat(parts).sort().values.tolist() == (y >= 0).nonzero().view(-1).tolist()
    kept, small = leave_out_small_classes(torch.tensor([5, 5, 2, 2, 2, 7, -3]), 2)
    assert kept.tolist() == [1, 1, 0, 0, 0, -1, -1] and small == {7: 1}
    with pytest.raises(ValueError, match="at least 2 classes"):
        leave_out_small_classes(torch.tensor([0, 0, 1]), 2)


def test_masks_that_do_not_fit() -> None:
    from torch_geometric.data import Data

    y = torch.arange(6) % 2
    part = torch.arange(6) // 2
    masks = {f"{name}_mask": part == i for i, name in enumerate(("train", "val", "test"))}
    [parts] = mask_splits(Data(y=y, **masks))
    assert [p.tolist() for p in parts] == [[0, 1], [2, 3], [4, 5]]
    trials = list(draw_trials(y, 1, 1, 2, [parts]))
    assert [t.init for t in trials] == [0, 1] and torch.equal(trials[1].test, parts[2])
    with pytest.raises(ValueError, match="overlap"):
        mask_splits(Data(y=y, **{**masks, "val_mask": part == 0}))
    with pytest.raises(ValueError, match="Split 0 .* without a labeled node"):
        mask_splits(Data(y=torch.where(part == 1, -1, y), **masks))


@pytest.mark.parametrize(
    ("model", "table", "named"),
    [
        ("gcn", 'hidden = "many"', "{'hidden': 'many'}"),
        ("gcn", "hidden = -3", "{'hidden': -3}"),
        ("gcn", "hidden = 3.5", "{'hidden': 3.5}"),
        ("sgc", "lr = nan", "{'lr': nan}"),
        ("node-classifier", "layer_num = 2", "no setting ['layer_num']"),
        ("node-classifier", "neighbors = [2, inf]", "{'neighbors': [2, inf]}"),
        ("node-classifier", "patience = 3", "no setting ['patience']"),
        ("torch.nn:Linear", "", "'--model' fails on (x, edge_index): Linear.forward()"),
    ],
)
def test_settings_and_models_that_do_not_fit_are_one_line(
    graph: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    table: str,
    named: str,
) -> None:
    file, out = tmp_path / "mine.toml", tmp_path / "rows.jsonl"
    file.write_text(f'["{model}"]\n{table}\n')
    flags = ["--dataset", str(graph), "--model", model, "--settings", str(file)]
    monkeypatch.setattr("sys.argv", ["nodes", *flags, "--num_splits", "1", "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        command_line(command.main)
    error, code = capsys.readouterr().err.splitlines()[-1], stop.value.code
    del stop
    gc.collect()
    assert code == 2 and named in error and not out.exists()
    assert "mine.toml" in error or "no setting" in error or "--model" in error


@pytest.fixture(scope="module")
def labels(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph with several labels a node, each told by the features; one node has none."""
    arrays = dict(np.load(graph))
    y = np.stack([arrays["y"] == 0, arrays["y"] % 2 == 1, arrays["y"] > 0], axis=1).astype(float)
    y[3] = np.nan
    path = tmp_path_factory.mktemp("labels") / "several.npz"
    np.savez(path, **{**arrays, "y": y})
    return path


@pytest.mark.parametrize(
    ("model", "metric"),
    [("gcn", "roc_auc"), ("mlp", "average_precision"), ("node-classifier", "f1")],
)
def test_several_labels_a_node(labels: Path, tmp_path: Path, model: str, metric: str) -> None:
    flags = ["--model", model, "--metric", metric, "--split", "fractions", "--num_splits", "1"]
    flags += ["--max_epochs", "60"]
    [row] = run(labels, tmp_path / "rows.jsonl", *flags)
    assert row["test_acc"] > 0.7
    assert row[f"test_{metric}"] > 0.7


def test_several_labels_a_node_take_masks_and_no_classes(labels: Path, tmp_path: Path) -> None:
    rows = run(labels, tmp_path / "rows.jsonl", "--model", "gcn", "--split", "masks")
    assert len(rows) == 2
    with pytest.raises(ValueError, match="'--split masks' for a graph of several labels a node"):
        run(labels, tmp_path / "new.jsonl", "--model", "gcn")
    with pytest.raises(ValueError, match="takes one class a node"):
        run(labels, tmp_path / "new.jsonl", "--model", "label-propagation", "--split", "masks")
    damaged = {**np.load(labels), "y": np.full((len(np.load(labels)["y"]), 2), 2)}
    np.savez(tmp_path / "damaged.npz", **damaged)
    with pytest.raises(ValueError, match="other labels than 0 and 1"):
        run(tmp_path / "damaged.npz", tmp_path / "new.jsonl", "--split", "masks")

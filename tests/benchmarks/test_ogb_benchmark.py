"""The OGB command line: every model learns, rows resume, ranks share, errors take one line."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ogb", reason="the package ogb is not installed")

from benchmarks.common import accuracy, read_rows
from benchmarks.ogb import command as ogb
from benchmarks.ogb import features as ogb_features
from benchmarks.ogb import make as make_ogb
from benchmarks.ogb.command import METHODS
from benchmarks.ogb.models import WideDiffResNet, settings_of
from benchmarks.speed import ogb as speed
from benchmarks.speed.harness import Harness
from torch_geometric_diff.ops import DiffusionOperator

SHAPE = dataclasses.replace(
    make_ogb.SHAPES["small"], nodes=600, edges=4000, classes=4, train=300, valid=100
)
QUICK = ["--num_inits", "2", "--max_epochs", "40"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ogb") / "sbm"
    make_ogb.write_ogb(SHAPE, out, seed=0)
    return out


def _run(folder: Path, out: Path, *flags: str) -> list[dict]:
    ogb.main(["--dataset", str(folder), "--out", str(out), *QUICK, *flags])
    return read_rows(out)


@pytest.mark.parametrize("model", METHODS)
def test_every_model_beats_chance(folder: Path, tmp_path: Path, model: str, capsys) -> None:
    flags = [] if model == "sgc" else ["--hidden", "16", "--dropout", "0.2"]
    rows = _run(folder, tmp_path / "rows.jsonl", "--model", model, *flags)
    labels = ogb.open_set(str(folder), tmp_path, "cpu").y
    largest_class = float(labels.bincount().max() / len(labels))
    assert [row["init"] for row in rows] == [0, 1]
    assert [row["init_seed"] for row in rows] == [0, 1]
    assert np.mean([row["test_acc"] for row in rows]) > largest_class + 0.1
    assert {row["model"] for row in rows} == {model}
    assert {row["split_kind"] for row in rows} == {"official, time"}
    assert rows[0]["settings"]["max_epochs"] == 40 and rows[0]["seconds"] > 0
    assert "(2 runs: 1 splits x 2 inits)" in capsys.readouterr().out


def test_seed_decides_the_result(folder: Path, tmp_path: Path) -> None:
    flags = ("--model", "mlp", "--hidden", "8")
    one = _run(folder, tmp_path / "a.jsonl", *flags)
    same = _run(folder, tmp_path / "b.jsonl", *flags)
    other = _run(folder, tmp_path / "c.jsonl", *flags, "--seed", "1")
    assert [row["test_acc"] for row in one] == [row["test_acc"] for row in same]
    assert other[0]["test_acc"] == one[1]["test_acc"]  # seed 1 + 0 = 0 + 1


def test_resume_runs_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    out, flags = tmp_path / "rows.jsonl", ("--model", "mlp", "--hidden", "8")
    _run(folder, out, *flags)
    first = out.read_bytes()
    out.write_bytes(first[:-20])  # killed in the middle of the second row
    with pytest.raises(ValueError, match="--resume"):
        _run(folder, out, *flags)
    rows = _run(folder, out, *flags, "--resume", "--num_inits", "3")
    assert [row["init"] for row in rows] == [0, 1, 2]
    assert out.read_bytes().startswith(first[: first.index(b"\n")])
    assert rows[1]["test_acc"] == json.loads(first.splitlines()[1])["test_acc"]
    with pytest.raises(ValueError, match="rows of another experiment: settings"):
        _run(folder, out, *flags, "--resume", "--lr", "0.5")


def test_ranks_share_the_seeds(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out, flags = tmp_path / "rows.jsonl", ("--model", "mlp", "--hidden", "8")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        ogb.main(["--dataset", str(folder), "--out", str(out), *QUICK, *flags])
        rows = read_rows(tmp_path / f"rows.rank{rank}.jsonl")
        assert [row["init"] for row in rows] == [int(rank)]
    assert "1 of 2 seeds are done" in capsys.readouterr().out


def test_official_evaluator_is_accuracy() -> None:
    torch.manual_seed(0)
    logits, y = torch.randn(50, 5), torch.randint(5, (50,))
    nodes = torch.arange(10, 40)
    name, score = ogb.scorer("ogbn-arxiv")
    assert name.startswith("ogb ")
    assert score(logits, y, nodes) == pytest.approx(accuracy(logits, y, nodes))
    assert ogb.scorer("sbm") == ("accuracy", accuracy)


def test_diffusing_columns_equals_diffusing_hidden_features() -> None:
    torch.manual_seed(0)
    operator = DiffusionOperator(torch.randint(30, (2, 90)), num_nodes=30, step_size=0.5)
    model = WideDiffResNet((6, 8, 3, 4), dropout=0.5, num_steps=5, step_size=0.5).eval()
    x = torch.randn(30, 6)
    hidden = model.blocks(model.encoder(x))
    expected = model.classifier(model.columns(model.conv(hidden, operator)))
    torch.testing.assert_close(model(x, operator), expected)


def test_settings_are_those_of_the_model() -> None:
    assert settings_of(METHODS["sgc"]).keys() == {"num_steps"}
    assert settings_of(METHODS["gcn"]).keys() == {"hidden", "num_layers", "dropout"}
    assert settings_of(METHODS["appnp"]).keys() >= {"hidden", "num_steps", "alpha"}


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model", "sgc", "--hidden", "8"], r"'sgc' has no setting \['hidden'\]"),
        (["--model", "gcn", "mlp", "--alpha", "1"], r"'gcn mlp' has no setting \['alpha'\]"),
        (["--model", "gcn", "mlp", "--features", "x.npy"], "'--features' is for the model 'mlp'"),
        (["--model", "diffused-mlp", "--batch_size", "1"], "'batch_size' of at least 2"),
        (["--model", "diffused-mlp", "--label_steps", "-1"], "'label_steps'"),
        (["--num_inits", "0"], "'--num_inits' to be positive"),
        (["--resume"], "need '--out'"),
    ],
)
def test_bad_flags(
    folder: Path, flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        ogb.main(["--dataset", str(folder), *flags])
    assert list(tmp_path.iterdir()) == []


def test_models_share_a_file(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "rows.jsonl"
    models = ["--model", "mlp", "sgc", "diffused-mlp"]
    rows = _run(folder, out, *models, "--hidden", "8", "--max_epochs", "2")
    assert [(row["model"], row["init"]) for row in rows] == [
        (m, i) for m in models[1:] for i in (0, 1)
    ]
    assert "hidden" not in rows[2]["settings"] and rows[4]["settings"]["lr"] == 0.003
    assert _run(folder, out, *models, "--hidden", "8", "--max_epochs", "2", "--resume") == rows


def test_bad_set_ends_in_one_line_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    content = (bad / "raw/data.npz").read_bytes()
    (bad / "raw/data.npz").write_bytes(content[: len(content) // 2])
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ogb", "--dataset", str(bad)]
    command += ["--out", str(tmp_path / "rows.jsonl")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert f"error: --dataset {bad}: '{bad}/raw/data.npz' is damaged" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "rows.jsonl").exists()


def test_features_command_line(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "y.npy"
    flags = ["--num_steps", "0", "2", "--block_columns", "8", "--out", str(out)]
    ogb_features.main(["--dataset", str(folder), *flags])
    assert capsys.readouterr().out == f"wrote {out} [2, 600, 32]\n"
    data = ogb.open_set(str(folder), tmp_path, "cpu")
    assert np.array_equal(np.load(out)[0], data.x)
    operator = DiffusionOperator(
        data.edge_index, num_nodes=600, step_size=0.5, normalization="row"
    ).to_dense()
    np.testing.assert_allclose(np.load(out)[1], operator @ (operator @ data.x), atol=1e-5)


def test_mlp_on_diffused_features(folder: Path, tmp_path: Path) -> None:
    """What the graph knows is in the features: the plain MLP gets better by them."""
    files = [tmp_path / "plain.npy", tmp_path / "diffused.npy"]
    for steps, out in zip((["0"], ["0", "2", "4"]), files, strict=True):
        ogb_features.main(["--dataset", str(folder), "--num_steps", *steps, "--out", str(out)])
    flags = ["--model", "mlp", "--hidden", "16"]
    plain, diffused = (
        np.mean(
            [
                row["test_acc"]
                for row in _run(folder, file.with_suffix(".jsonl"), *flags, "--features", str(file))
            ]
        )
        for file in files
    )
    assert diffused > plain + 0.1
    with pytest.raises(ValueError, match="'--features' is for the model 'mlp'"):
        _run(folder, tmp_path / "r", "--model", "gcn", "--features", str(files[0]))
    np.save(tmp_path / "short.npy", np.ones((9, 3), np.float32))
    with pytest.raises(ValueError, match=r"short.npy' has shape \[9, 3\], expected \[600, F\]"):
        _run(folder, tmp_path / "r", *flags, "--features", str(tmp_path / "short.npy"))


def test_diffused_features_of_labeled_nodes(folder: Path, tmp_path: Path) -> None:
    data = ogb.open_set(str(folder), tmp_path, "cpu")
    np.save(tmp_path / "x.npy", np.stack([data.x, 2 * data.x]))
    found = ogb.open_diffused(str(folder), tmp_path, "cpu", tmp_path / "x.npy")
    for part in ("train_index", "valid_index", "test_index"):
        assert torch.equal(found.y[found[part]], data.y[data[part]])
        assert torch.equal(found.x[found[part], 32:], 2 * data.x[data[part]])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_speed_suite_measures_memory_and_time() -> None:
    held = []
    assert speed.peak_memory(lambda: held.append(torch.ones(1 << 26))) == pytest.approx(
        0.25, abs=0.05
    )
    assert speed.peak_memory(lambda: None) < 0.05
    rows = speed.run(Harness(), quick=True)
    assert {"ours", "APPNP, edge_index", "SGConv, edge_index"} <= {row["name"] for row in rows}
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in rows)
    assert rows[-1]["share, gathered"] > rows[-1]["share of bandwidth"] > 0


@pytest.mark.slow
def test_killed_benchmark_keeps_its_rows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "benchmarks.ogb", "--dataset", str(folder), "--out", str(out)]
    command += ["--model", "mlp", "--hidden", "8", "--num_inits", "40", "--max_epochs", "300"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (out.exists() and out.stat().st_size):
            time.sleep(0.02)
        process.kill()
    kept = read_rows(out)
    assert 1 <= len(kept) < 40
    ogb.main([*command[3:-4], "--num_inits", str(len(kept) + 1), *command[-2:], "--resume"])
    rows = read_rows(out)
    assert rows[: len(kept)] == kept and len(rows) == len(kept) + 1

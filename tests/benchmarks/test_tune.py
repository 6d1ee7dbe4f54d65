"""The tuner and the variant that it tunes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("optuna", reason="optuna is not installed")

from benchmarks import planetoid, tune
from benchmarks.common import command_line, read_rows
from benchmarks.common.splits import split_seeds
from benchmarks.nodes.models import METHODS
from benchmarks.nodes.settings import load_settings
from benchmarks.nodes.spaces import SPACES, plan_of
from benchmarks.nodes.spaces import STARTS as ALL_STARTS
from benchmarks.nodes.variant import mixed_graph, word_graph
from torch_geometric_diff.data import load_graph

MODEL = "diff-resnet-tuned"
STARTS = ALL_STARTS[MODEL]
FLAGS = "--dataset digits --num_splits 2 --max_epochs 1 --trials 9".split()


def small_graph() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(24, 15, generator=generator) < 0.3).double()
    edges = torch.randint(0, 24, (2, 40), generator=generator)
    edges = edges[:, edges[0] != edges[1]]
    edges = torch.cat([edges, edges.flip(0)], dim=1).unique(dim=1)
    return Data(x=x, edge_index=edges, y=torch.arange(24) % 3)


@pytest.mark.parametrize("normalization", ["sym", "row"])
@pytest.mark.parametrize("diffuse", ["logits", "probabilities"])
@pytest.mark.parametrize("learn_step_size", [False, True])
def test_forward_equals_a_dense_reference(
    normalization: str, diffuse: str, learn_step_size: bool
) -> None:
    data = small_graph()
    method = METHODS[MODEL](
        data,
        binary=True,
        hidden=8,
        input_dropout=0.5,
        hidden_dropout=0.5,
        num_blocks=1,
        diffuse=diffuse,
        layer_num=5,
        step_size=0.2,
        dropout=0.1,
        normalization=normalization,
        self_loops=True,
        learn_step_size=learn_step_size,
        neighbors=3,
        mix=0.4,
    )
    model = method.model().double().eval()
    x, edge_index, weights = method.inputs
    out = model(x.double(), edge_index, weights.double())

    weight = torch.zeros(24, 24, dtype=torch.float64)
    weight[data.edge_index[1], data.edge_index[0]] = 1
    (source, target), similarity = word_graph(data.x, 3)
    assert (source != target).all() and similarity.min() >= 0
    weight.index_put_((target, source), 0.4 * similarity.double(), accumulate=True)
    assert torch.equal(weight, weight.t())
    degree = weight.sum(dim=1) + 1
    if normalization == "sym":
        weight = weight / (degree[:, None] * degree[None, :]).sqrt()
    else:
        weight = weight / degree[:, None]
    step = torch.eye(24) - 0.2 * (weight.sum(dim=1).diag() - weight)

    first, block = model.first, model.blocks[0].lin1
    h = ((data.x > 0).double() @ first.weight.t() + first.bias).relu()
    h = h + (h @ block.weight.t() + block.bias).relu()
    z = h @ model.classifier.weight.t() + model.classifier.bias
    z = z if diffuse == "logits" else z.softmax(dim=-1)
    expected = torch.linalg.matrix_power(step, 5) @ z
    expected = expected if diffuse == "logits" else expected.log()
    torch.testing.assert_close(out, expected, rtol=1e-7, atol=1e-7)
    if learn_step_size:
        out.sum().backward()
        assert model.conv.step_size.grad is not None


def test_no_neighbors_is_the_citation_graph() -> None:
    data = small_graph()
    for neighbors, mix in ((0, 0.5), (4, 0.0)):
        edge_index, weight = mixed_graph(data, neighbors, mix)
        assert torch.equal(edge_index, data.edge_index) and (weight == 1).all()


def test_the_variant_runs_as_any_model(tmp_path: Path) -> None:
    flags = "--model diff-resnet-tuned --dataset digits --num_splits 1 --num_inits 1".split()
    planetoid.main([*flags, "--max_epochs", "1", "--out", str(tmp_path / "out.jsonl")])
    row = read_rows(tmp_path / "out.jsonl")[0]
    assert row["settings"] == {**load_settings("digits", "diff-resnet-tuned"), "max_epochs": 1}
    assert row["model"] == "diff-resnet-tuned" and 0 < row["test_acc"] < 1


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tune") / "unbroken.jsonl"
    tune.main([*FLAGS, "--out", str(out)])
    return out


def found(path: Path) -> list[Any]:
    names = ("number", "state", "params", "settings", "val_accs", "val_acc")
    return [[row[name] for name in names] for row in read_rows(path)]


def test_rows_hold_the_search(unbroken: Path) -> None:
    rows = read_rows(unbroken)
    assert [row["number"] for row in rows] == list(range(9))
    assert [row["params"] for row in rows[:-2]] == STARTS
    assert rows[-1]["params"] not in STARTS and rows[0]["state"] == "COMPLETE"
    assert len({str(row["params"]) for row in rows}) == 9
    for row in rows:
        assert len(row["val_accs"]) == 2 and set(row["params"]) == set(SPACES[MODEL])
        assert row["val_acc"] == pytest.approx(sum(row["val_accs"]) / 2)
        assert "test_acc" not in row and 0 < row["settings"]["step_size"] < 2
        hits = [300 * value for value in row["val_accs"]]  # 30 of each of the 10 classes
        assert hits == pytest.approx([round(hit) for hit in hits], abs=1e-3)


def test_killed_search_resumes_to_the_same(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    lines = unbroken.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:7]) + lines[7][:70])  # killed while a row was written
    tune.main([*FLAGS, "--out", str(out)])
    assert found(out) == found(unbroken)


def test_full_width_network_on_the_mixed_graph(tmp_path: Path) -> None:
    flags = ["--model", "diff-resnet-words", "--trials", "1", "--out", str(tmp_path / "out.jsonl")]
    tune.main([*FLAGS, *flags])
    (row,) = read_rows(tmp_path / "out.jsonl")
    assert row["params"] == ALL_STARTS["diff-resnet-words"][0]
    published = load_settings("digits", "diff-resnet")
    for name in ("lr", "weight_decay", "patience", "dropout", "layer_num"):
        assert row["settings"][name] == published[name]


def test_word_neighbors_change_the_operator_of_the_full_width_network() -> None:
    data = small_graph()
    settings = {"step_size": 0.2, "layer_num": 3, "dropout": 0.0}
    plain = METHODS["diff-resnet"](data, **settings).inputs[1].to_dense()
    none = METHODS["diff-resnet"](data, neighbors=3, mix=0.0, **settings).inputs[1].to_dense()
    mixed = METHODS["diff-resnet"](data, neighbors=3, mix=0.5, **settings).inputs[1]
    assert torch.equal(plain, none) and mixed.is_symmetric
    assert ((mixed.to_dense() != 0) & (plain == 0)).any()
    torch.testing.assert_close(mixed.to_dense().sum(dim=1), torch.ones(24).to(mixed.dtype))


def test_bad_settings_are_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_graph("digits")
    trials = tune.tuning_trials(data, 7, 10)
    good = {"state": "COMPLETE", "val_acc": 0.9, "val_accs": [0.9] * 10, "params": STARTS[0]}
    monkeypatch.setattr(tune, "val_accuracies", lambda *_: iter([0.5] * 10))
    row = tune.Search(MODEL, plan_of(MODEL, {}), [good], 0).step(data, trials, 1)
    assert row["state"] == "PRUNED" and 3 <= len(row["val_accs"]) < 10
    monkeypatch.setattr(tune, "val_accuracies", lambda *_: iter([0.95] * 10))
    row = tune.Search(MODEL, plan_of(MODEL, {}), [good], 0).step(data, trials, 1)
    assert row["state"] == "COMPLETE" and len(row["val_accs"]) == 10
    assert tune.best([good, row]) is row


def test_splits_are_none_of_the_reported_and_judged_apart() -> None:
    data = load_graph("digits")
    trials = tune.tuning_trials(data, 7, 20)
    assert not {trial.split_seed for trial in trials} & set(split_seeds(42, 100))
    for trial in trials:
        for nodes, count in ((trial.train, 20), (trial.val, 30), (trial.test, 30)):
            assert data.y[nodes].bincount().tolist() == [count] * 10
        assert torch.cat([trial.train, trial.val, trial.test]).unique().numel() == 800


def test_the_rest_may_judge() -> None:
    data = load_graph("digits")
    by_val, by_rest = (tune.tuning_trials(data, 7, 1, judge=judge)[0] for judge in ("val", "rest"))
    assert torch.equal(by_val.train, by_rest.train) and torch.equal(by_val.val, by_rest.val)
    assert len(by_val.test) == 10 * 30 and len(by_rest.test) == 1797 - 10 * (20 + 30 + 30)
    seen = torch.cat([by_rest.train, by_rest.val, by_val.test, by_rest.test])
    assert len(seen.unique()) == 1797


def test_labels_of_other_nodes_are_never_read_and_training_sees_no_judges() -> None:
    data = load_graph("digits")
    (trial,) = tune.tuning_trials(data, 7, 1)
    settings = tune.to_settings(data, plan_of(MODEL, {}), STARTS[0], max_epochs=3)
    before = list(tune.val_accuracies(data, MODEL, settings, [trial]))

    known = torch.zeros(data.num_nodes, dtype=torch.bool)
    known[trial.train] = known[trial.val] = True
    hidden = tune.hide_labels(data, trial)
    assert (hidden.y[~known] == -1).all() and torch.equal(hidden.y[known], data.y[known])

    known[trial.test] = True
    wrong = data.clone()
    wrong.y[~known] = (wrong.y[~known] + 1) % 10
    assert list(tune.val_accuracies(wrong, MODEL, settings, [trial])) == before
    wrong.y[trial.test] = (wrong.y[trial.test] + 1) % 10
    assert list(tune.val_accuracies(wrong, MODEL, settings, [trial])) != before


def test_write_puts_the_best_into_the_settings(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from benchmarks.nodes import settings

    for name in ("digits.toml", "default.toml"):
        (tmp_path / name).write_bytes((settings.FOLDER / name).read_bytes())
    for module in (settings, tune):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    before = {name: load_settings("digits", name) for name in METHODS if name != MODEL}
    best = max(
        (row for row in read_rows(unbroken) if row["state"] == "COMPLETE"),
        key=lambda row: row["val_acc"],
    )
    for _ in range(2):  # the second time replaces the first
        tune.main([*FLAGS, "--out", str(unbroken), "--write"])
        assert load_settings("digits", MODEL) == best["settings"]
        assert {name: load_settings("digits", name) for name in before} == before
    text = (tmp_path / "digits.toml").read_text()
    assert text.endswith(capsys.readouterr().out.rpartition("# Found")[2])
    assert text.count("# Found by benchmarks.tune") == 1 and text.count("# Not tuned yet") == 2
    assert f"best of {len(read_rows(unbroken))} settings by validation" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "42"], "'--seed' 42 draws splits that are reported"),
        (["--trials", "-1"], "'--trials'"),
        (["--trials", "0"], "raise '--trials'"),
        (["--num_splits", "0"], "positive number"),
        (["--max_epochs", "0"], "max_epochs"),
        (["--dataset", "coral"], "no graph 'coral'"),
        (["--dataset", "cora", "--data_root", "/dev/null"], "/dev/null"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as exit_:
        command_line(lambda: tune.main([*FLAGS, *flags, "--out", str(tmp_path / "out.jsonl")]))
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and len(error.splitlines()) == 1


def test_rows_of_another_search_are_refused(unbroken: Path) -> None:
    with pytest.raises(ValueError, match="another experiment: num_splits is 2 there and 3 here"):
        tune.main([*FLAGS, "--num_splits", "3", "--out", str(unbroken)])

import json

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the classifier's benchmark needs scikit-learn")

from benchmarks import classifier as benchmark
from benchmarks import flags


@pytest.fixture
def blobs(monkeypatch):
    from sklearn.datasets import make_blobs

    X, y = make_blobs(60, centers=3, cluster_std=1.0, random_state=0)
    monkeypatch.setattr(benchmark, "load", lambda name: (X / 10, y))
    return X, y


def test_a_draw_keeps_so_many_labels_of_each_class(blobs):
    y = blobs[1]
    few = benchmark.draw(y, 4, 0)
    known = few != -1
    assert np.array_equal(few[known], y[known])
    assert np.bincount(few[known]).tolist() == [4, 4, 4]
    assert np.array_equal(few, benchmark.draw(y, 4, 0))
    assert not np.array_equal(few, benchmark.draw(y, 4, 1))
    with pytest.raises(ValueError, match="class 0 has 20 points, too few for 21 labels"):
        benchmark.draw(y, 21, 0)


def test_accuracy_counts_the_points_without_a_label(blobs):
    class Knows:
        """Right on all given labels, wrong on all others but two."""

        def fit(self, X, few):
            self.label_distributions_ = None
            self.transduction_ = np.where(few == -1, 9, few)
            self.transduction_[np.flatnonzero(few == -1)[:2]] = y[np.flatnonzero(few == -1)[:2]]

    X, y = blobs
    assert benchmark.accuracy(Knows(), X, y, benchmark.draw(y, 5, 0)) == 2 / 45


def test_rows_resume_and_the_table_pairs_the_draws(blobs, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    names = list(benchmark.MODELS)
    flags = ["--data", "digits", "--labels", "1", "3", "--draws", "3", "--out", str(out)]
    benchmark.main([*flags, "--models", *names[:2]])
    before = out.read_text()
    with pytest.raises(ValueError, match="holds 3 draws"):
        benchmark.main([*flags, "--draws", "4", "--models", names[0], "--resume"])
    benchmark.main([*flags, "--models", *names, "--resume"])
    assert out.read_text().startswith(before)
    rows = {(r["model"], r["labels"]): r for r in map(json.loads, out.read_text().splitlines())}
    assert len(rows) == 2 * len(names)
    assert all(0 <= a <= 1 for row in rows.values() for a in row["accuracy"])
    good = [name for name in names if np.mean(rows[name, 3]["accuracy"]) > 0.6]
    assert {names[0], names[1], names[-1]} <= set(good)  # the Gaussian peers are set for digits
    lines = capsys.readouterr().out.splitlines()[-len(names) :]
    ours, peer = (100 * np.array(rows[name, 1]["accuracy"]) for name in names[:2])
    assert lines[0].startswith(f"| {names[0]} | {ours.mean():.2f} ± ")
    assert f"(ours {np.mean(ours - peer):+.2f} ± " in lines[1]


def test_tuning_writes_nothing(blobs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--data", "wine", "--labels", "1", "3", "--draws", "1"]
    benchmark.main(["--tune", "--models", "logistic regression", *flags])
    *printed, best = capsys.readouterr().out.splitlines()
    grid = benchmark.MODELS["logistic regression"][1]
    assert len(printed) == len(grid) and json.loads(best)["settings"] in grid
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("dataset", flags.POINTS)
def test_every_peer_has_settings_of_its_grid(dataset):
    for name, (build, grid) in benchmark.MODELS.items():
        settings = benchmark.settings_of(dataset, name)
        build(**settings)
        assert settings in grid or name in (benchmark.OURS, "graph alone")


def test_the_sets_are_there():
    for dataset, shape in {"digits": (1797, 64), "wine": (178, 13), "omniglot": (1000, 64)}.items():
        X, y = benchmark.load(dataset)
        assert X.shape == shape and y.shape == shape[:1]


def test_bad_numbers_are_refused(blobs, tmp_path):
    out = str(tmp_path / "rows.jsonl")
    for bad in (["--draws", "0"], ["--labels", "0"]):
        with pytest.raises(ValueError, match="must be positive"):
            benchmark.main([*bad, "--out", out])


def test_rows_of_the_speed_suite():
    from benchmarks.speed import classifier
    from benchmarks.speed.harness import Harness

    rows = classifier.run(Harness(), quick=True)
    assert [row["case"] for row in rows[::3]] == ["fit, 1000 x 16", "predict, 1000 x 16"]
    assert {row["name"] for row in rows} == {classifier.OURS, "graph alone", "LabelSpreading"}
    assert all(row["seconds"] > 0 and row["repeats"] == 3 for row in rows)


@pytest.mark.parametrize("flags", [["--out", "rows.jsonl"], ["--resume"]])
def test_tuning_takes_no_file(flags: list[str]) -> None:
    with pytest.raises(ValueError, match=f"'{flags[0]}' does not go with '--tune'"):
        benchmark.main(["--tune", "--models", "logistic regression", *flags])

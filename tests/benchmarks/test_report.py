"""The report is computed from rows alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import report

ACCURACY = {  # model -> split -> accuracies of its initializations
    "diff-resnet": [[0.80, 0.82], [0.84, 0.84], [0.90, 0.88]],
    "gcn": [[0.79, 0.79], [0.85, 0.83], [0.84, 0.86]],
}


def write(path: Path, model: str, **changes: Any) -> Path:
    rows = [
        {
            "dataset": "cora",
            "source": "shchur",
            "split_kind": "random",
            "model": model,
            "settings": {"lr": 0.01},
            "split": split,
            "init": init,
            "test_acc": value,
            "val_acc": 0.8,
            "seconds": 2.0,
            "versions": {"torch": "2.13.0", "torch_geometric": "2.8.1"},
            **changes,
        }
        for split, values in enumerate(ACCURACY[model])
        for init, value in enumerate(values)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [str(write(tmp_path / f"{model}.jsonl", model)) for model in ACCURACY]


def test_table(files: list[str], capsys: pytest.CaptureFixture) -> None:
    report.main(files)
    lines = capsys.readouterr().out.splitlines()
    values = 100 * np.array(ACCURACY["diff-resnet"])
    assert lines[2].startswith(
        f"| cora | shchur | diff-resnet | {values.mean():.2f} ± {values.std():.2f} "
        "| 80.00 | 6 (3 splits) | 2.00 | - |"
    )
    difference = values.mean(axis=1) - 100 * np.array(ACCURACY["gcn"]).mean(axis=1)
    low, high = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert f"| {difference.mean():+.2f} ± {(high - low) / 2:.2f} (3) |" in lines[3]
    assert "torch 2.13.0" in lines[-1] and "Splits: random" in lines[-2]


def test_kinds_of_splits_stand_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [
        str(write(tmp_path / f"{kind}-{model}.jsonl", model, split_kind=kind))
        for kind in ("random", "development")
        for model in ACCURACY
    ]
    report.main(files[: len(ACCURACY)])
    *alone, versions = capsys.readouterr().out.splitlines()
    report.main(files)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == versions and lines[-1 - len(alone) : -1] == alone
    first = [line.replace("development", "random") for line in lines[: len(alone)]]
    assert first == alone and any("Splits: development." in line for line in lines)


def test_other_reference_and_repeated_rows(files: list[str], capsys: pytest.CaptureFixture) -> None:
    report.main(files)
    once = capsys.readouterr().out
    report.main([*files, files[0]])
    assert capsys.readouterr().out == once
    report.main([*files, "--reference", "gcn"])
    assert "gcn minus model" in capsys.readouterr().out


def test_paired_difference_without_overlap_is_not_a_number(files: list[str]) -> None:
    rows = report.read_rows(files[0])
    later = [{**row, "split": row["split"] + 100} for row in rows]
    mean, half, splits = report.paired_difference(rows, later)
    assert np.isnan(mean) and np.isnan(half) and splits == 0


def test_picture(files: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = tmp_path / "accuracy.png"
    report.main([*files, "--plot", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".jsonl", ".png"]


def test_bad_input(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("[1]\n")
    other = tmp_path / "other.jsonl"
    other.write_text('{"suite": "speed"}\n')
    mixed = write(tmp_path / "mixed.jsonl", "gcn", settings={"lr": 0.5})
    cases = {
        "no results": [str(empty)],
        "line 1 is not a JSON object": [str(damaged)],
        "lacks": [str(other)],
        "No such file": [str(tmp_path / "missing.jsonl")],
        "mix two settings of 'gcn'": [*files, str(mixed)],
    }
    for message, arguments in cases.items():
        with pytest.raises(SystemExit) as exit_:
            report.command_line(lambda arguments=arguments: report.main(arguments))
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and message in error and len(error.splitlines()) == 1

import json

import numpy as np
import pytest
import torch

from benchmarks.common import command_line
from fewshot import report, train
from fewshot.features import save_features


@pytest.fixture
def features(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(7).repeat_interleave(30)
    x = torch.randn(7, 16, generator=generator)[labels]
    x = (x + torch.randn(210, 16, generator=generator)).relu()
    path = tmp_path / "features.safetensors"
    meta = {"dataset": "toy", "backbone": "conv4", "split": "test"}
    save_features(path, x, labels, meta, base_mean=x.mean(0))
    return path


def run(features, out, *flags, method="simple"):
    argv = ["--dataset", "toy", "--backbone", "conv4", "--features", str(features), "--silent"]
    train.main([*argv, "--out", str(out), "--method", method, *map(str, flags)])
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_killed_run_resumes_as_the_unbroken_one(features, tmp_path, capsys):
    whole = run(features, tmp_path / "whole.jsonl", "--test_iter", 230)
    assert [row["first"] for row in whole] == [0, 100, 200]
    assert [len(row["correct"]) for row in whole] == [100, 100, 30]
    half = tmp_path / "half.jsonl"
    run(features, half, "--test_iter", 100)
    with half.open("a") as file:
        file.write('{"first": 100, "corr')  # killed while writing
    resumed = run(features, half, "--test_iter", 230, "--resume")
    assert [row["correct"] for row in resumed] == [row["correct"] for row in whole]
    accuracy = np.concatenate([row["correct"] for row in whole]) / 75
    half_width = 1.96 * accuracy.std() / 230**0.5
    expected = f"{100 * accuracy.mean():.2f} ± {100 * half_width:.2f} % over 230 tasks"
    assert expected in capsys.readouterr().out.splitlines()[-1]


def test_results_of_other_settings_are_not_mixed(features, tmp_path):
    out = tmp_path / "rows.jsonl"
    run(features, out, "--test_iter", 5)
    with pytest.raises(ValueError, match="other settings.*'--out'"):
        run(features, out, "--test_iter", 9, "--resume", "--shot", 5)
    with pytest.raises(ValueError, match="--resume"):
        run(features, out)


@pytest.mark.parametrize("method", train.METHODS)
@pytest.mark.parametrize("flags", [(), ("--raw",), ("--unbalanced", "--query_per_class", 4)])
def test_every_method_runs_in_every_form(features, tmp_path, monkeypatch, method, flags):
    monkeypatch.setattr(train.methods.TIM.__init__, "__defaults__", (15.0, 50, 1e-4))
    monkeypatch.setattr(train.methods.AlphaTIM.__init__, "__defaults__", (None, 15.0, 50, 1e-4))
    rows = run(features, tmp_path / "rows.jsonl", "--test_iter", 6, *flags, method=method)
    assert np.mean(rows[0]["correct"]) / rows[0]["queries"] > 0.4  # chance is 0.2
    assert rows[0]["settings"]["method"] == method


def test_diffusion_takes_the_papers_flags(features, tmp_path):
    flags = "--step_size 0.4 --layer_num 3 --n_top 6 --sigma 3 --alpha 0.1 --mu 0.01".split()
    rows = run(features, tmp_path / "a.jsonl", "--test_iter", 2, *flags, method="diffusion")
    own = rows[0]["settings"]["own"]
    assert (own["step_size"], own["layer_num"], own["n_top"], own["sigma"]) == (0.4, 3, 6, 3)
    assert (own["alpha"], own["mu"]) == (0.1, 0.01)
    with pytest.raises(ValueError, match="diverged; 'step_size' 900"):
        run(features, tmp_path / "b.jsonl", "--step_size", 900, method="diffusion")
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dataset", "mini"), "expected 'mini'"),
        (("--backbone", "wideres"), "expected 'wideres'"),
        (("--split", "val"), "expected 'val'"),
        (("--way", "9"), "only 7 classes"),
        (("--shot", "20"), "needs 35 images per class"),
        (("--features", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--test_iter", "0"), "'--test_iter' must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(features, tmp_path, capsys, flags, message):
    out = tmp_path / "rows.jsonl"
    argv = ["--dataset", "toy", "--backbone", "conv4", "--features", str(features)]
    with pytest.raises(SystemExit) as end:
        command_line(lambda: train.main([*argv, "--out", str(out), *flags]))
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == ""
    assert printed.err.count("\n") == 1 and message in printed.err
    assert not out.exists()


def test_the_table_is_made_of_the_rows(features, tmp_path, capsys):
    files = []
    for method in ("simple", "power"):
        for shot in (1, 5):
            files.append(tmp_path / f"{method}{shot}.jsonl")
            run(features, files[-1], "--test_iter", 20, "--shot", shot, method=method)
    capsys.readouterr()
    report.main([str(file) for file in files])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| method | toy conv4 1-shot | toy conv4 5-shot |"
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    mean = 100 * np.mean(rows[0]["correct"]) / 75
    assert lines[2].startswith(f"| simple | {mean:.2f} ± ") and lines[3].startswith("| power |")
    other = tmp_path / "other.jsonl"
    run(features, other, "--test_iter", 20, "--seed", 1)
    with pytest.raises(ValueError, match="'simple' has 2 different settings"):
        report.main([str(files[0]), str(other)])


def test_the_table_compares_methods_on_the_same_tasks(features, tmp_path, capsys):
    files = []
    for method in ("simple", "power"):
        for form in ((), ("--unbalanced", "--query_per_class", 4)):
            files.append(tmp_path / f"{method}{len(form)}.jsonl")
            run(features, files[-1], "--test_iter", 20, *form, method=method)
    capsys.readouterr()
    report.main([*map(str, files), "--against", "power"])
    tables = [part.splitlines() for part in capsys.readouterr().out.split("\n\n")]
    assert [t[0] for t in tables] == [
        "| method | toy conv4 1-shot |",
        "| power minus | toy conv4 1-shot |",
        "| method | toy conv4 1-shot, unbalanced, 20 queries |",
        "| power minus | toy conv4 1-shot, unbalanced, 20 queries |",
    ]
    rows = {file: json.loads(file.read_text()) for file in files}
    simple, power = (np.array(rows[file]["correct"]) / 20 for file in (files[1], files[3]))
    d = 100 * (power - simple)
    expected = f"{d.mean():+.2f} ± {1.96 * d.std() / 20**0.5:.2f}"
    assert tables[3][2:] == [f"| simple | {expected} |"]
    seconds = 1000 * rows[files[1]]["seconds"] / 20
    assert tables[2][2].endswith(f" ({seconds:.3g} s) |")
    with pytest.raises(ValueError, match="'against' must name one of .*got 'tim'"):
        report.table([rows[files[0]]], "tim")


def test_settings_of_one_method_have_a_line_each(features, tmp_path, capsys):
    files = []
    for lamda in ("0.5", "2.0"):
        files.append(tmp_path / f"{lamda}.jsonl")
        run(features, files[-1], "--test_iter", 20, "--lamda", lamda, method="laplacian")
    capsys.readouterr()
    report.main([str(file) for file in files])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| laplacian, lamda 0.5",
        "| laplacian, lamda 2.0",
    ]


def test_a_kind_of_a_method_is_named_by_its_word_alone(features, tmp_path, capsys):
    files = []
    for prior in ("balanced", "dirichlet"):  # which fixes the steps and rounds too
        files.append(tmp_path / f"{prior}.jsonl")
        run(features, files[-1], "--test_iter", 20, "--prior", prior, method="heat")
    capsys.readouterr()
    report.main([*map(str, files), "--against", "prior balanced"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [
        "| heat, prior balanced",
        "| heat, prior dirichlet",
    ]
    assert lines[5].startswith("| heat, prior balanced minus |")


def test_lost_and_doubled_rows_are_mended(features, tmp_path, capsys):
    whole = run(features, tmp_path / "whole.jsonl", "--test_iter", 430)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    expected = capsys.readouterr().out.split("simple: ")[1]
    out = tmp_path / "rows.jsonl"
    for kept in ([0, 0, 2, 2, 3], [4, 1], [3, 2, 1, 0, 0]):  # rows of two processes, lines lost
        out.write_text("".join(lines[i] for i in kept))
        rows = run(features, out, "--test_iter", 430, "--resume")
        assert sorted({row["first"] for row in rows}) == [0, 100, 200, 300, 400]
        assert len(rows) == len(kept) + 5 - len({*kept})
        assert capsys.readouterr().out.split("simple: ")[1] == expected
    report.main([str(out), str(tmp_path / "whole.jsonl")])
    assert "tasks" not in capsys.readouterr().out  # none has fewer than another
    longer = run(features, out, "--test_iter", 470, "--resume")  # the last row was a short one
    assert [(row["first"], len(row["correct"])) for row in longer[-1:]] == [(430, 40)]
    assert "over 470 tasks" in capsys.readouterr().out
    assert [row["correct"] for row in whole] == [
        row["correct"] for row in train.each_task_once(longer)[:5]
    ]

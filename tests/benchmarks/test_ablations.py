"""Ablations: studies, rows, resume, measures, tables and pictures."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from benchmarks.ablations import command as ablations
from benchmarks.ablations import report as ablation_report
from benchmarks.ablations.studies import STUDIES, build, stable_step_size
from benchmarks.common import command_line, draw_trials, read_rows
from benchmarks.nodes.models import METHODS
from torch_geometric_diff.data import load_graph
from torch_geometric_diff.ops import DiffusionOperator

FLAGS = "--datasets digits --study diffuse --num_splits 2 --max_epochs 1".split()


def numbers(*paths: Path) -> list[list[Any]]:
    names = ["variant", "split", "init", "init_seed", "test_acc", "val_acc", "ddr", "separability"]
    return sorted([row[name] for name in names] for row in read_rows(paths))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablations")
    ablations.main([*FLAGS, "--results", str(folder)])
    return folder / "digits.jsonl"


def test_rows_hold_what_a_reader_needs(unbroken: Path) -> None:
    rows = read_rows(unbroken)
    assert [(row["split"], row["variant"]) for row in rows] == [
        (split, name) for split in (0, 1) for name in ("features", "logits", "probabilities")
    ]
    assert [row["base"] for row in rows[:3]] == [True, False, False]
    for row in rows:
        assert row["study"] == "diffuse" and row["dataset"] == "digits"
        assert row["settings"]["max_epochs"] == 1 and row["settings"]["step_size"] == 0.25
        assert row["split_seed"] == (121958, 671155)[row["split"]]
        assert 0 < row["ddr"] < 1 and 0 < row["separability"] < 1 and "torch" in row["versions"]


def test_measures_are_those_of_the_logits(unbroken: Path) -> None:
    row = next(row for row in read_rows(unbroken) if row["variant"] == "probabilities")
    data = load_graph("digits")
    variant = next(v for v in STUDIES["diffuse"](data) if v.value == "probabilities")
    trial = next(draw_trials(data.y, 42, 1, 1))
    [result] = build(data, variant).run([trial], max_epochs=1, lr=0.01, weight_decay=5e-4)
    logits = result.logits
    distance = torch.cdist(
        logits.double(), logits.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    same = data.y[:, None] == data.y
    assert row["ddr"] == pytest.approx(
        float(distance[~same].min() / distance[same].max()), rel=1e-3
    )


def test_measures_without_a_number_are_null() -> None:
    apart = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    y = torch.tensor([0, 0, 1, 1])
    measured = {name: measure(apart, y) for name, measure in ablations.MEASURES.items()}
    assert measured == {"ddr": None, "separability": 1.0}
    measured = {name: measure(0 * apart, y) for name, measure in ablations.MEASURES.items()}
    assert measured == {"ddr": None, "separability": None}


def test_killed_study_goes_on(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / unbroken.name
    lines = unbroken.read_bytes().splitlines(keepends=True)
    out.write_bytes(lines[0] + lines[2] + lines[4] + lines[5][:40])  # killed within a row
    ablations.main([*FLAGS, "--results", str(tmp_path)])
    assert out.read_bytes().startswith(lines[0] + lines[2] + lines[4])
    assert len(read_rows(out)) == 6 and numbers(out) == numbers(unbroken)
    finished = out.read_bytes()
    ablations.main([*FLAGS, "--results", str(tmp_path)])
    assert out.read_bytes() == finished


def test_ranks_share_the_trials(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        ablations.main([*FLAGS, "--results", str(tmp_path)])
    files = [tmp_path / f"digits.rank{rank}.jsonl" for rank in (0, 1)]
    assert [len(read_rows(file)) for file in files] == [3, 3]
    assert numbers(*files) == numbers(unbroken)


def test_other_settings_are_refused(unbroken: Path) -> None:
    with pytest.raises(ValueError, match="variant features with other settings"):
        ablations.main([*FLAGS, "--max_epochs", "2", "--results", str(unbroken.parent)])


def test_every_study_has_bases_and_only_its_own_change() -> None:
    data = load_graph("digits")
    for name, study in STUDIES.items():
        variants = study(data)
        bases = [variant for variant in variants if variant.base]
        assert len(bases) == (4 if name == "encoders" else 1)
        assert len({variant.value for variant in variants}) == len(variants)
        for variant in variants:
            base = next(
                b for b in bases if str(variant.value).startswith(str(b.value)) or len(bases) == 1
            )
            changed = {
                key
                for key in {*variant.settings, *base.settings}
                if variant.settings.get(key) != base.settings.get(key)
            }
            key = {"steps": "layer_num", "learned": "learn_step_size", "encoders": "after"}
            allowed = {key.get(name, name)} | ({"dropout"} if name == "diffuse" else set())
            assert changed <= allowed and (variant.base or changed)


def test_grids_reach_past_the_bound_of_stability_and_keep_long_runs_short() -> None:
    data = load_graph("digits")
    sizes = [variant.value for variant in STUDIES["step_size"](data)]
    bound = stable_step_size(data)
    assert sizes == sorted(sizes) and 0.25 in sizes
    assert 1 < max(sizes) / bound < 1.2 and sum(size <= bound * 1.01 for size in sizes) >= 6
    splits = {variant.value: variant.most_splits for variant in STUDIES["steps"](data)}
    assert list(splits) == [0, 1, 2, 5, 10, 20, 50, 100, 200]
    assert splits[200] == 5 and splits[20] is None


def test_unstable_published_step_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ablations.studies.stable_step_size", lambda data: 0.2)
    variants = STUDIES["steps"](load_graph("digits"))
    assert {variant.settings["step_size"] for variant in variants} == {0.18}


def test_what_follows_an_encoder_equals_a_dense_reference() -> None:
    data = load_graph("digits")
    variants = {variant.value: variant for variant in STUDIES["encoders"](data)}
    trial = next(draw_trials(data.y, 42, 1, 1))
    torch.manual_seed(0)
    step = DiffusionOperator(
        data.edge_index, num_nodes=data.num_nodes, step_size=0.25, dtype=torch.float64
    ).to_dense()
    degree = torch.zeros(data.num_nodes).index_add_(
        0, data.edge_index[1], torch.ones(data.num_edges)
    )
    adjacency = torch.eye(data.num_nodes).double()
    adjacency[data.edge_index[1], data.edge_index[0]] = 1
    adjacency = adjacency / ((degree + 1)[:, None] * (degree + 1)).sqrt()
    for name in ("mlp + diffusion", "gat + appnp"):
        method = build(data, variants[name])
        torch.manual_seed(trial.init_seed)
        model = method.model().eval()
        with torch.no_grad():
            out, start = model(*method.inputs), model.encoder(*method.inputs).double()
        if name.endswith("diffusion"):
            expected = start
            for _ in range(20):
                expected = step @ expected
        else:
            expected = start
            for _ in range(20):
                expected = 0.9 * adjacency @ expected + 0.1 * start
        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


def test_what_follows_leaves_the_decay_of_the_encoder() -> None:
    data = load_graph("digits")
    variants = {variant.value: variant for variant in STUDIES["encoders"](data)}
    for encoder, groups in (("gcn", [1e-3, 0.0]), ("mlp", None)):
        model = build(data, variants[f"{encoder} + diffusion"]).model()
        found = [group.get("weight_decay") for group in model.parameter_groups(1e-3)]
        assert found == ([None] if groups is None else groups)
        sizes = sum(p.numel() for group in model.parameter_groups(1e-3) for p in group["params"])
        assert sizes == sum(p.numel() for p in model.parameters())


def test_learned_step_size_moves_and_is_recorded(tmp_path: Path) -> None:
    flags = "--datasets digits --study learned --num_splits 1 --max_epochs 2".split()
    ablations.main([*flags, "--results", str(tmp_path)])
    fixed, learned = read_rows(tmp_path / "digits.jsonl")
    assert "learned_step_size" not in fixed
    assert learned["learned_step_size"] == pytest.approx(0.25, abs=0.05)
    assert learned["learned_step_size"] != 0.25


def test_diff_resnet_takes_a_learned_step_size_among_its_settings() -> None:
    assert "learn_step_size" in METHODS["diff-resnet"].settings()


def made_rows() -> list[dict[str, Any]]:
    def rows(study: str, variant: Any, base: bool, values: list[float], ddr: Any) -> list[Any]:
        return [
            {
                "dataset": "cora",
                "source": "shchur",
                "study": study,
                "variant": variant,
                "base": base,
                "split": split,
                "init": 0,
                "test_acc": value,
                "val_acc": 0.9,
                "ddr": ddr,
                "separability": 0.5,
                "seconds": 1.5,
            }
            for split, value in enumerate(values)
        ]

    return [
        *rows("steps", 20, True, [0.80, 0.82, 0.84], 0.25),
        *rows("steps", 0, False, [0.60, 0.62], None),
        *rows("encoders", "mlp", True, [0.5, 0.6], 0.1),
        *rows("encoders", "mlp + diffusion", False, [0.7, 0.8], 0.2),
        *rows("encoders", "gcn", True, [0.7, 0.7], 0.1),
        *rows("encoders", "gcn + diffusion", False, [0.71, 0.73], 0.2),
    ]


def test_report_compares_with_the_base_on_the_same_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = made_rows()
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))  # one twice
    ablation_report.main([str(path), "--plot", str(tmp_path)])
    printed = capsys.readouterr().out
    table = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("|")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table}
    assert cells["20 (base)"] == ["82.00 ± 4.97", "90.00", "-", "0.25", "0.500", "1.5"]
    assert cells["0"][2:4] == ["-20.00 ± 0.00 (2)", "nan"]
    assert cells["mlp + diffusion"][2] == "+20.00 ± 0.00 (2)"
    assert cells["gcn + diffusion"][2] == "+2.00 ± 12.71 (2)"  # against gcn, not mlp
    assert printed.index("| 0 ") < printed.index("| 20 (base)")
    for name in ("steps", "encoders"):
        picture = (tmp_path / f"ablation_cora_{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 5000


@pytest.mark.parametrize(
    ("main", "flags", "message"),
    [
        (ablations.main, ["--study", "color"], "invalid choice: 'color'"),
        (ablations.main, ["--datasets", "coral"], "invalid choice: 'coral'"),
        (ablations.main, ["--num_splits", "0"], "positive number"),
        (ablations.main, ["--max_epochs", "0"], "max_epochs"),
        (ablations.main, ["--device", "gpu"], "gpu"),
        (ablations.main, ["--data_root", "/dev/null", "--datasets", "cora"], "/dev/null"),
        (ablations.main, ["--results", "/dev/null/x"], "/dev/null/x"),
        (ablation_report.main, ["none.jsonl"], "none.jsonl"),
        (ablation_report.main, [os.devnull], "no results in"),
        (ablation_report.main, ["foreign.jsonl"], "not a result of benchmarks.ablations"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    main: Any,
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "foreign.jsonl").write_text('{"split": 0, "init": 0}\n')
    monkeypatch.chdir(tmp_path)
    first = [] if main is ablation_report.main else [*FLAGS, "--results", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as exit_:
        command_line(lambda: main([*first, *flags]))
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and len(error.splitlines()) == 1

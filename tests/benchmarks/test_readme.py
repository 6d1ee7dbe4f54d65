"""The tables of the pages come from the rows."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import readme
from benchmarks.common import command_line
from benchmarks.readme import ACCURACY_PARTS, FRONT, PARTS, SCALE_PARTS, by_graph, fill, main

ROOT = Path(__file__).parents[2]


def test_fill_replaces_what_is_between_the_marks() -> None:
    text = "a\n<!-- x -->\nold | rows\n<!-- /x -->\nb\n"
    once = fill(text, "x", r"new \1 rows")
    assert once == "a\n<!-- x -->\n\nnew \\1 rows\n\n<!-- /x -->\nb\n"
    assert fill(once, "x", r"new \1 rows") == once
    with pytest.raises(ValueError, match="once"):
        fill(text, "y", "")


def test_tables_are_written_from_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib")
    pytest.importorskip("sklearn", reason="scikit-learn")
    front, tables = tmp_path / "README.md", tmp_path / "benchmarks.md"
    front.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    tables.write_text((ROOT / "docs/benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    own = tmp_path / "accuracy.md"
    own.write_text((ROOT / "docs/accuracy.md").read_text(encoding="utf-8"), encoding="utf-8")
    scale = tmp_path / "scale.md"
    scale.write_text((ROOT / "docs/scale.md").read_text(encoding="utf-8"), encoding="utf-8")
    pages = ["--readme", str(front), "--tables", str(tables), "--accuracy", str(own)]
    main([*pages, "--scale", str(scale), "--plot", str(tmp_path)])
    contents = ((front, FRONT), (tables, PARTS), (own, ACCURACY_PARTS), (scale, SCALE_PARTS))
    for page, parts in contents:
        text = page.read_text(encoding="utf-8")
        for part in parts.values():
            assert part() in text
    models = next(m for group, m in readme.groups("per_class").items() if group[0] == "cora")
    values = [row["test_acc"] for row in models["gcn"]]
    assert (
        f"| GCN | {100 * np.mean(values):.1f} ± {100 * np.std(values):.1f} |" in front.read_text()
    )
    for name in (
        "speed.png",
        "citation.png",
        "ablation_cora_steps.png",
        "ablation_cora_encoders.png",
    ):
        assert (tmp_path / name).stat().st_size > 10_000


def test_cells_of_fewer_splits_say_so() -> None:
    ours = [
        {"dataset": "a.npz", "model": "node-classifier", "split": split, "test_acc": accuracy}
        for split, accuracy in enumerate((0.9, 0.8))
    ]
    other = {"dataset": "a.npz", "model": "gcn", "split": 1, "test_acc": 0.7}
    beyond = {**other, "split": 2, "test_acc": 0.1}  # of no split of ours
    assert by_graph([other, beyond, *ours]).splitlines() == [
        "| graph | splits | node-classifier | gcn |",
        "| --- | --- | --- | --- |",
        "| a | 2 | 85.00 ± 5.00 | 70.00 ± 0.00 (1) |",
    ]


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


def test_a_page_without_marks_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks")
    monkeypatch.setattr("sys.argv", ["readme", "--readme", str(page)])
    with pytest.raises(SystemExit) as stop:
        command_line(readme.main)
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert page.read_text() == "no marks"

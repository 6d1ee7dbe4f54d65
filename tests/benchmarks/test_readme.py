"""The tables of the pages come from the rows."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import readme
from benchmarks.common import command_line
from benchmarks.readme import by_graph, fill, main, pages

ROOT = Path(__file__).parents[2]


def test_fill_replaces_what_is_between_the_marks() -> None:
    text = "a\n<!-- x -->\nold | rows\n<!-- /x -->\nb\n"
    once = fill(text, "x", r"new \1 rows")
    assert once == "a\n<!-- x -->\n\nnew \\1 rows\n\n<!-- /x -->\nb\n"
    assert fill(once, "x", r"new \1 rows") == once
    with pytest.raises(ValueError, match="once"):
        fill(text, "y", "")


def test_pages_and_pictures_are_written_from_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib")
    pytest.importorskip("sklearn", reason="scikit-learn")
    for page in pages(ROOT):
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True, parents=True)
        text = page.read_text(encoding="utf-8")
        copy.write_text(text.replace("| GCN |", "| of old |"), encoding="utf-8")
    main(["--root", str(tmp_path)])
    for page in pages(ROOT):
        assert (tmp_path / page.relative_to(ROOT)).read_bytes() == page.read_bytes()
    models = next(m for group, m in readme.groups("per_class").items() if group[0] == "cora")
    values = [row["test_acc"] for row in models["gcn"]]
    front = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"| GCN | {100 * np.mean(values):.1f} ± {100 * np.std(values):.1f} |" in front
    for name in (
        "speed.png",
        "citation.png",
        "ablation_cora_steps.png",
        "ablation_cora_encoders.png",
    ):
        assert (tmp_path / "docs" / name).stat().st_size > 10_000


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


def test_a_mark_of_nothing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- nothing -->\n<!-- /nothing -->\n")
    monkeypatch.setattr("sys.argv", ["readme", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        command_line(readme.main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "'nothing'" in error
    assert "<!-- nothing -->" in page.read_text()

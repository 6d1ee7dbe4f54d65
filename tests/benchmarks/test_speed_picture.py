"""The picture of the suites shows every case that has a peer."""

import json
from pathlib import Path

import pytest

from benchmarks.common import command_line
from benchmarks.speed import picture
from benchmarks.speed.picture import Case, cases, main, size


def record(path: Path, date: str, ratios: dict[str, float], case: str, suite: str) -> Path:
    rows = [{"suite": suite, "case": case, "name": n, "ratio": r} for n, r in ratios.items()]
    path.write_text(json.dumps({"environment": {"date": date}, "rows": rows}))
    return path


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("cora (2485 x 1433), K = 20", (2485, 1433)),
        ("random graph, 169343 nodes of mean degree 14, 7 columns, K = 20", (169343, 7)),
        ("5-way 1-shot, 512 features, 100 epochs, 6 tasks", (80, 512)),
        ("SSGConv(64, 3): pubmed (19717 nodes), K = 10", (19717, None)),
        ("something", (None, None)),
    ],
)
def test_sizes_are_read_from_names(case: str, expected: tuple[int | None, int | None]) -> None:
    assert size(case) == expected


def test_the_best_peer_counts_and_the_latest_file(tmp_path: Path) -> None:
    old = record(tmp_path / "b.json", "2026-01-01", {"ours": 1, "a": 9}, "x (5 x 2)", "kernels")
    new = record(
        tmp_path / "a.json",
        "2026-01-02",
        {"ours": 1, "ours with reorder=True": 0.5, "a": 3, "b": 0.8},
        "x (5 x 2)",
        "kernels",
    )
    own = record(tmp_path / "c.json", "", {"threads: 2": 1, "threads: 1": 2}, "y", "scale")
    assert cases([old, new, own]) == [Case("kernels", "x (5 x 2)", 5, 2, 0.8, "b")]
    assert cases([old])[0].faster == 9


def test_every_suite_has_a_marker() -> None:
    from benchmarks.speed.__main__ import SUITES

    marked = {suite for suites, _ in picture.KINDS.values() for suite in suites}
    assert {*SUITES} - marked == {"memory"}  # bytes, not seconds


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib")
    files = [
        record(tmp_path / "a.json", "", {"ours": 1, "a": 0.5}, "x (5 x 2)", "kernels"),
        record(tmp_path / "b.json", "", {"knn_graph": 1, "a": 4}, "points", "knn"),
    ]
    main([*map(str, files), "--out", str(tmp_path / "speed.png")])
    printed = capsys.readouterr().out
    assert "0.50x  kernels: x (5 x 2) (a)" in printed
    assert "not drawn" in printed and "knn: points" in printed and "2 cases" in printed
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.json").write_text("[]")
    monkeypatch.setattr("sys.argv", ["picture", str(tmp_path / "bad.json"), "--out", "x.png"])
    with pytest.raises(SystemExit) as stop:
        command_line(main)
    assert stop.value.code == 2 and "bad.json" in capsys.readouterr().err

"""Ratios by commit."""

import json
from pathlib import Path

import pytest

from benchmarks.speed.compare import main


def write(path: Path, **ratios: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = [{"case": case, "name": "PyG", "ratio": ratio} for case, ratio in ratios.items()]
    rows.append({"case": "a", "name": "ours, DiffConv", "ratio": 9.0})
    path.write_text(json.dumps({"rows": rows}))
    return path


def test_a_fall_of_a_tenth_is_red(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "old" / "1.json", a=2.0, b=3.0, gone=1.0)
    flags = ["--before", str(tmp_path / "old")]
    new = write(tmp_path / "new" / "1.json", a=1.82, b=4.0, fresh=1.0)
    main([str(new), *flags])
    assert capsys.readouterr().out.startswith("2 cases in both, 0 fell")
    write(new, a=1.79, b=4.0)
    with pytest.raises(SystemExit) as stop:
        main([str(new), *flags])
    assert stop.value.code == 1
    assert "| a | PyG | 2.00 | 1.79 | -10 % |" in capsys.readouterr().out
    better = write(tmp_path / "new" / "2.json", a=2.5)  # of several runs the best counts
    main([str(new), str(better), *flags])
    main([str(new), "--before", str(tmp_path / "none")])  # the first commit


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match="a.json' holds no rows of benchmarks.speed"):
        main([str(tmp_path / "a.json"), "--before", str(tmp_path)])

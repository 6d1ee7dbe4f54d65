"""The examples run, at a small size, and are short."""

import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib")
pytest.importorskip("sklearn", reason="scikit-learn")

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "accelerate_a_model": {"num_nodes": 200, "repeats": 1},
    "cora": {"epochs": 1},
    "few_texts": {"size": 200},
    "heat_on_a_map": {"size": 200},
    "knn_digits": {"draws": 1},
    "ogb_stand_in": {"nodes": 400},
    "toys": {"size": 200},
}
SAYS = {  # of those without a picture everything, of the others something
    "accelerate_a_model": ["1 layers replaced, 0 left", "largest difference: "],
    "layers": ["APPNP(K=10, alpha=0.1): accuracy", "SGConv(8, 2, K=3): (200, 2)"],
    "recurrence": ["keep their values: True", "learned filter: [0.5, 0.0, 0.0, 0.5]"],
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SMALL, *SAYS}


@pytest.mark.parametrize("name", [*SMALL, *(name for name in SAYS if name not in SMALL)])
def test_examples_run_and_are_short(
    name: str,
    one_thread: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 60
    if name == "cora":  # the fallback, which needs no file

        def no_network(*_: object) -> None:
            raise FileNotFoundError

        monkeypatch.setenv("DATA_ROOT", str(tmp_path))
        monkeypatch.setattr("torch_geometric_diff.data.graphs._download", no_network)
    with torch.random.fork_rng():
        found = runpy.run_path(str(path))
        if name in SMALL:
            found["main"](**SMALL[name]).savefig(tmp_path / "picture.png")
            assert (tmp_path / "picture.png").stat().st_size > 5000
    out = capsys.readouterr().out
    assert out.strip() and all(text in out for text in SAYS.get(name, ())), out

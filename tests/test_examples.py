"""Every example runs and says what it should."""

import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "accelerate_a_model": ["1 layers replaced, 0 left", "largest difference: "],
    "layers": ["APPNP(K=10, alpha=0.1): accuracy", "SGConv(8, 2, K=3): (200, 2)"],
    "recurrence": ["keep their values: True", "learned filter: [0.5, 0.0, 0.0, 0.5]"],
}


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / f"{name}.py"))
    out = capsys.readouterr().out
    assert all(text in out for text in SAYS[name]), out

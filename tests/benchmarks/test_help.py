"""``--help`` and typos wait for nothing: flags are read before anything heavy is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fewshot.flags
from benchmarks import flags
from benchmarks.common.cli import Parser

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "torch_geometric",
    "scipy",
    "sklearn",
    "matplotlib",
    "optuna",
    "pandas",
    "PIL",
    "plotly",
    "networkx",
}


def commands() -> list[str]:
    """Every module that ``python -m`` runs."""
    found = []
    for folder in ("benchmarks", "fewshot", "toys"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if re.search("^    command_line\\(", path.read_text(), re.MULTILINE):
                parts = path.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(parts).removesuffix(".__main__"))
    return [name for name in found if name != "benchmarks.common.cli"]


def test_all_commands_are_seen() -> None:
    assert len(commands()) >= 22
    assert {"benchmarks.nodes", "benchmarks.ogb", "fewshot.train", "toys.xor"} <= {*commands()}


@pytest.mark.parametrize("module", commands())
def test_nothing_heavy_is_imported(module: str) -> None:
    for flag, code in (("--help", 0), ("--no_such_flag", 2)):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", module, flag],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        lines = done.stderr.splitlines()
        loaded = {line.rpartition("|")[2].strip() for line in lines if "import time" in line}
        said = [line for line in lines if "import time" not in line]
        assert not loaded & HEAVY, sorted(loaded & HEAVY)
        assert done.returncode == code, said
        if code:
            assert len(said) == 1 and said[0].startswith(f"python -m {module}: error: "), said
        else:
            assert "--help" in done.stdout and not said


@pytest.mark.parametrize(
    "parser",
    [
        p(None)
        for module in (flags, fewshot.flags)
        for p in vars(module).values()
        if callable(p) and getattr(p, "__annotations__", {}).get("return") is Parser
    ],
)
def test_every_number_tells_its_default(parser: Parser) -> None:
    parser.format_help()
    for action in parser._actions:
        if action.default not in (None, False, "==SUPPRESS=="):
            assert "default" in (action.help or ""), action.dest


def test_a_typo_is_told_what_it_may_have_been(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        flags.tune(None).parse_args(["--out", "o", "--trails", "3"])
    assert stop.value.code == 2 and "did you mean --trials?" in capsys.readouterr().err


def test_names_written_out_are_those_there_are() -> None:
    from benchmarks.ablations.studies import STUDIES
    from benchmarks.common import partitions
    from benchmarks.nodes.models import METHODS
    from benchmarks.ogb.command import METHODS as OGB
    from benchmarks.ogb.make import KINDS, SHAPES
    from benchmarks.ogb.models import settings_of
    from torch_geometric_diff.data import features, graphs

    assert flags.MODELS == tuple(METHODS) and tuple(STUDIES) == flags.STUDIES
    assert flags.OGB_MODELS == tuple(OGB)
    settings = {n: type(v) for method in OGB.values() for n, v in settings_of(method).items()}
    assert settings == flags.OGB_SETTINGS
    assert partitions.METHODS == flags.ORDERS and tuple(SHAPES) == flags.SHAPES
    assert tuple(KINDS) == flags.KINDS
    assert (features.COMPONENTS, features.WORDS) == (flags.COMPONENTS, flags.WORDS)
    assert all(suffix in flags.FORMS for suffix in graphs.FILES)


def test_names_of_the_classifier_and_of_fewshot() -> None:
    for extra in ("sklearn", "PIL", "safetensors"):
        pytest.importorskip(extra)
    import fewshot.backbones
    import fewshot.images
    import fewshot.methods
    import fewshot.train
    from benchmarks import classifier

    assert flags.POINT_MODELS == tuple(classifier.MODELS)
    there = (fewshot.images.SPECS, fewshot.images.SPLITS, fewshot.backbones.BACKBONES)
    told = fewshot.flags.DATASETS, fewshot.flags.SPLITS, fewshot.flags.BACKBONES
    assert tuple(map(tuple, there)) == told
    assert tuple(fewshot.train.METHODS) == fewshot.flags.METHODS
    assert fewshot.methods.heat.PRIORS == fewshot.flags.PRIORS


def test_cards_are_those_of_the_compiled_kernels() -> None:
    from benchmarks.speed.machine_code import CARDS

    assert tuple(sorted(CARDS)) == flags.CARDS

"""Published settings: one TOML file per data set, one table per model, its source in a comment."""

import inspect
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from benchmarks.nodes.models import METHODS
from torch_geometric_diff.experiment import fit

FOLDER = Path(__file__).parent
DATASETS = ["cora", "citeseer", "pubmed", "digits"]

# Settings that have a flag of their own.
SETTINGS: dict[str, type] = {
    "step_size": float,
    "layer_num": int,
    "dropout": float,
    "diffuse": str,
    "hidden": int,
    "lr": float,
    "weight_decay": float,
    "max_epochs": int,
    "patience": int,
}
TRAINING = {
    name
    for name, parameter in inspect.signature(fit).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def load_settings(dataset: str, model: str) -> dict[str, Any]:
    """The settings of a model on a data set.

    Raises:
        ValueError: If there are none.
    """
    tables = tomllib.loads((FOLDER / f"{dataset}.toml").read_text(encoding="utf-8"))
    if model not in tables:
        raise ValueError(f"There are no settings of model '{model}' for '{dataset}'")
    return tables[model]


def choose_settings(dataset: str, model: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The published settings of a model, with the flags that were given laid over them."""
    allowed = TRAINING | METHODS[model].settings()
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        raise ValueError(
            f"Model '{model}' has no setting {unknown}; it has {sorted(allowed & set(SETTINGS))}"
        )
    return {**load_settings(dataset, model), **overrides}

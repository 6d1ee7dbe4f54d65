"""Settings: one TOML file per data set, one table per model, its source in a comment.

A graph without a file of its own, or a model that its file lacks, takes those of ``default.toml``.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from benchmarks.common import fit
from benchmarks.nodes.graphs import file_name
from benchmarks.nodes.models import METHODS
from benchmarks.nodes.own import find_method

FOLDER = Path(__file__).parent

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
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
TRAINING = {*DEFAULTS}


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a settings file, one a model.

    Raises:
        ValueError: If the file is no such file; names it.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding too
        raise ValueError(f"'{path}' is no settings file: {error}") from error
    for model, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"'{path}': expected a table a model (got '{model} = {table}')")
    return tables


def load_settings(dataset: str, model: str, file: Path | None = None) -> dict[str, Any]:
    """The settings of a model on a data set: of ``file``, else of the graph's, else the default's.

    Raises:
        ValueError: If there are none.
    """
    paths = [file] if file else [FOLDER / f"{file_name(dataset)}.toml", FOLDER / "default.toml"]
    for path in paths:
        tables = read_settings(path) if file or path.is_file() else {}
        if model in tables:
            return tables[model]
    if model not in METHODS:  # a user's own
        return {}
    where = f"in '{file}'" if file else f"for '{dataset}'"
    raise ValueError(f"There are no settings of model '{model}' {where}")


def choose_settings(
    dataset: str, model: str, overrides: dict[str, Any], file: Path | None = None
) -> dict[str, Any]:
    """The published settings of a model, with the flags that were given laid over them."""
    settings = {**load_settings(dataset, model, file), **overrides}
    if model not in METHODS:
        settings = {**DEFAULTS, **settings}
    kind = find_method(model)
    allowed = (TRAINING if kind.training is None else {*kind.training}) | kind.settings()
    unknown = sorted(set(settings) - allowed)
    if unknown:
        raise ValueError(f"Model '{model}' has no setting {unknown}; it has {sorted(allowed)}")
    if model in METHODS:
        usual = read_settings(FOLDER / "default.toml")[model]
        wrong = {n: v for n, v in settings.items() if not fits(v, usual.get(n))}
        if wrong:
            like = {name: usual[name] for name in wrong if name in usual}
            where = f" of '{file}'" if file else ""
            raise ValueError(
                f"Settings {wrong} of model '{model}'{where} are no such numbers or words as "
                f"{like or 'they should be'}"
            )
    return settings


def fits(value: Any, usual: Any) -> bool:
    """Whether a setting is of the kind of the usual one; numbers are finite and at least 0."""
    if isinstance(value, list):
        return not isinstance(usual, str) and all(fits(each, usual) for each in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not 0 <= value < float("inf"):
        return False
    if usual is None:
        return True
    if isinstance(usual, (bool, str)):
        return isinstance(value, type(usual))
    return number and (isinstance(usual, float) or isinstance(value, int))

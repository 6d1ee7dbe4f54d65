"""Settings: one TOML file per data set, one table per model, its source in a comment.

A graph without a file of its own, or a model that its file lacks, takes those of ``default.toml``.
"""

import inspect
import sys
from collections.abc import Sequence
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

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
TRAINING = {*DEFAULTS}


def read_toml(path: Path) -> dict[str, Any]:
    """A file in TOML.

    Raises:
        ValueError: If it is none; names it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding too
        raise ValueError(f"'{path}' is no settings file: {error}") from error


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a settings file, one a model.

    Raises:
        ValueError: If the file is no such file; names it.
    """
    tables = read_toml(path)
    for model, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"'{path}': expected a table a model (got '{model} = {table}')")
    return tables


def load_settings(dataset: str, model: str, file: Path | None = None) -> dict[str, Any]:
    """The settings of a model on a data set: of the graph's file, else of the default's, with those
    of ``file`` laid over them.

    Raises:
        ValueError: If there are none.
    """
    own = read_settings(file).get(model, {}) if file else {}
    for path in (FOLDER / f"{file_name(dataset)}.toml", FOLDER / "default.toml"):
        tables = read_settings(path) if path.is_file() else {}
        if model in tables:
            return {**tables[model], **own}
    if model not in METHODS:  # a user's own
        return {**DEFAULTS, **own}
    raise ValueError(f"There are no settings of model '{model}' for '{dataset}'")


def check_tables(file: Path, models: Sequence[str]) -> None:
    """Refuse a settings file that would change nothing, or speaks of a model that is none.

    Raises:
        ValueError: Names the file and its tables.
    """
    tables = read_settings(file)
    strange = sorted(name for name in tables if name not in METHODS and ":" not in name)
    if strange:
        raise ValueError(f"'{file}' holds settings of {strange}, which are no models")
    if not {*tables} & {*models}:
        raise ValueError(
            f"There are no settings of model '{' '.join(models)}' in '{file}' (got those of "
            f"{sorted(tables)})"
        )


def choose_settings(
    dataset: str, models: Sequence[str], overrides: dict[str, Any], file: Path | None = None
) -> dict[str, dict[str, Any]]:
    """The published settings of each model, with those of the file and the flags laid over them.

    Raises:
        ValueError: If a flag is a setting of none of the models, or a setting of the file none of
            its model, or of another kind.
    """
    if file:
        check_tables(file, models)
    allowed = {name: _allowed(name) for name in models}
    unknown = sorted({*overrides} - set().union(*allowed.values()))
    found = {}
    for name in models:
        mine = {key: value for key, value in overrides.items() if key in allowed[name]}
        found[name] = {**load_settings(dataset, name, file), **mine}
        wrong = unknown or sorted({*found[name]} - allowed[name])
        if wrong:
            raise ValueError(
                f"Model '{name}' has no setting {wrong}; it has {sorted(allowed[name])}"
            )
        if name in METHODS:
            _check_kinds(name, found[name], file)
    return found


def _allowed(model: str) -> set[str]:
    kind = find_method(model)
    return (TRAINING if kind.training is None else {*kind.training}) | kind.settings()


def _check_kinds(model: str, settings: dict[str, Any], file: Path | None) -> None:
    """Refuse a number where the default is a word, and the like."""
    usual = read_settings(FOLDER / "default.toml")[model]
    wrong = {n: v for n, v in settings.items() if not fits(v, usual.get(n))}
    if wrong:
        like = {name: usual[name] for name in wrong if name in usual}
        where = f" of '{file}'" if file else ""
        raise ValueError(
            f"Settings {wrong} of model '{model}'{where} are no such numbers or words as "
            f"{like or 'they should be'}"
        )


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

"""What ``benchmarks.tune`` searches of each model."""

from pathlib import Path
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from benchmarks.nodes.own import find_method
from benchmarks.nodes.settings import TRAINING, read_toml

Row = dict[str, Any]
Space = dict[str, BaseDistribution]
WORDS: Space = {"neighbors": IntDistribution(2, 15), "mix": FloatDistribution(0.0, 1.0, step=0.05)}

# What is searched of each model. A relative step is a share of the largest stable one, which
# depends on the graph.
SPACES: dict[str, Space] = {
    "diff-resnet-tuned": {
        "binary": CategoricalDistribution([True, False]),
        "hidden": CategoricalDistribution([16, 32, 64, 128]),
        "input_dropout": FloatDistribution(0.0, 0.9, step=0.05),
        "hidden_dropout": FloatDistribution(0.0, 0.9, step=0.05),
        "num_blocks": IntDistribution(0, 1),
        "diffuse": CategoricalDistribution(["logits", "probabilities"]),
        "layer_num": IntDistribution(2, 40),
        "relative_step": FloatDistribution(0.1, 0.9, step=0.05),
        "dropout": FloatDistribution(0.0, 0.2, step=0.02),
        "normalization": CategoricalDistribution(["sym", "row"]),
        **WORDS,
        "lr": FloatDistribution(2e-3, 3e-2, log=True),
        "weight_decay": FloatDistribution(1e-4, 5e-2, log=True),
    },
    "diff-resnet-words": {
        **WORDS,
        "normalization": CategoricalDistribution(["sym", "row"]),
        "layer_num": IntDistribution(4, 24),
        "relative_step": FloatDistribution(0.2, 0.9, step=0.1),
        "dropout": FloatDistribution(0.1, 0.5, step=0.05),
    },
    "diff-linear": {
        **WORDS,
        "rare_words": CategoricalDistribution([True, False]),
        "normalization": CategoricalDistribution(["sym", "row"]),
        "layer_num": IntDistribution(2, 30),
        "relative_step": FloatDistribution(0.1, 0.9, step=0.1),
        "lr": FloatDistribution(5e-2, 0.5, log=True),
        "weight_decay": FloatDistribution(1e-5, 1e-3, log=True),
    },
}
_NARROW: Row = {
    "binary": True,
    "hidden": 64,
    "input_dropout": 0.5,
    "hidden_dropout": 0.5,
    "num_blocks": 0,
    "diffuse": "logits",
    "layer_num": 20,
    "relative_step": 0.5,
    "dropout": 0.0,
    "normalization": "sym",
    "neighbors": 5,
    "mix": 0.3,
    "lr": 0.01,
    "weight_decay": 5e-3,
}
_WIDE: Row = {
    "neighbors": 5,
    "mix": 0.3,
    "normalization": "sym",
    "layer_num": 20,
    "relative_step": 0.5,
    "dropout": 0.25,
}
_LINEAR: Row = {
    "rare_words": True,
    "neighbors": 10,
    "mix": 0.6,
    "normalization": "row",
    "layer_num": 10,
    "relative_step": 0.8,
    "lr": 0.2,
    "weight_decay": 5e-5,  # both those of SGC
}
STARTS: dict[str, list[Row]] = {  # tried before the search draws its own
    "diff-resnet-tuned": [
        _NARROW,
        {**_NARROW, "mix": 0.0},
        {**_NARROW, "num_blocks": 1},
        {**_NARROW, "normalization": "row", "layer_num": 10, "relative_step": 0.4},
        {**_NARROW, "hidden_dropout": 0.8, "weight_decay": 1e-3},
        {**_NARROW, "diffuse": "probabilities", "weight_decay": 5e-4},
        {**_NARROW, "binary": False, "weight_decay": 5e-4},
    ],
    "diff-resnet-words": [
        _WIDE,
        {**_WIDE, "normalization": "row", "layer_num": 10, "relative_step": 0.4},
        {**_WIDE, "mix": 0.0},
    ],
    "diff-linear": [
        _LINEAR,
        {**_LINEAR, "mix": 0.3, "neighbors": 5},
        {**_LINEAR, "rare_words": False},
        {**_LINEAR, "normalization": "sym", "relative_step": 0.5},
    ],
}
FIXED: dict[str, Row] = {  # the rest, as published
    "diff-resnet-tuned": {"self_loops": True, "max_epochs": 10_000, "patience": 50},
    "diff-resnet-words": {"lr": 0.01, "weight_decay": 5e-4, "max_epochs": 10_000, "patience": 50},
    "diff-linear": {"max_epochs": 10_000, "patience": 50},
}


class Plan(NamedTuple):
    """What is searched of a model, what is tried first, and what stays."""

    space: Space
    starts: list[Row]
    fixed: Row

    def text(self) -> str:
        """The space in words, for the rows."""
        return "; ".join(f"{name}: {space}" for name, space in sorted(self.space.items()))


def plan_of(model: str, settings: Row, file: Path | None = None) -> Plan:
    """What to search of a model: as above, of a file, or around the settings that it has.

    Args:
        model (str): Of ours, or ``module:class``.
        settings (dict): Those that it has; what is not searched stays.
        file (Path, optional): A list of choices or ``{low, high, log}`` a setting.

    Raises:
        ValueError: If there is nothing to search or a setting is none of the model; names it.
    """
    kind = find_method(model)
    own = {**kind.defaults(), **settings}
    training = TRAINING if kind.training is None else {*kind.training}
    if file is not None:
        space = {name: _of_file(name, value, file) for name, value in read_toml(file).items()}
        if unknown := sorted({*space} - kind.settings() - training):
            raise ValueError(f"'{file}': model '{model}' has no setting {unknown}")
    elif model in SPACES:
        return Plan(SPACES[model], STARTS[model], FIXED[model])
    else:
        space = {name: s for name, value in own.items() if (s := around(name, value)) is not None}
    if not space:
        raise ValueError(f"Model '{model}' has no setting with a number to search; pass '--space'")
    start = {n: own[n] for n in space if n in own and _holds(space[n], own[n])}
    starts = [start] if len(start) == len(space) else []
    return Plan(space, starts, {name: own[name] for name in own if name not in space})


def _holds(space: Any, value: Any) -> bool:
    """Whether a search can begin with a value."""
    if isinstance(space, CategoricalDistribution):
        return value in space.choices
    step = getattr(space, "step", None)
    share = 0.0 if step is None else (value - space.low) / step
    return space.low <= value <= space.high and abs(share - round(share)) < 1e-9


def around(name: str, value: Any) -> BaseDistribution | None:
    """What to search of a setting that has a value: shares from 0, other numbers from a quarter to
    four times of it, both of a switch; of the length of training and of words, nothing.
    """
    if isinstance(value, bool):
        return CategoricalDistribution([True, False])
    if name in ("max_epochs", "patience") or not isinstance(value, (int, float)) or value < 0:
        return None
    if isinstance(value, int):
        return IntDistribution(max(1, value // 4), max(4, 4 * value), log=True) if value else None
    if 0 <= value < 1 and any(word in name for word in ("dropout", "alpha", "mix")):
        return FloatDistribution(0.0, 0.95, step=0.05)
    return FloatDistribution(value / 4, 4 * value, log=True) if value else None


def _of_file(name: str, value: Any, file: Path) -> BaseDistribution:
    """A list of choices, or the ends of a range."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, (bool, int, float, str)) for v in value)
    ):
        return CategoricalDistribution(value)
    try:
        low, high, log = value["low"], value["high"], value.get("log", False)
        whole = isinstance(low, int) and isinstance(high, int)
        return (IntDistribution if whole else FloatDistribution)(low, high, log=log)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"'{file}': expected '{name}' to be a list of choices or {{low, high, log}} "
            f"(got {value}; {type(error).__name__}: {error})"
        ) from error

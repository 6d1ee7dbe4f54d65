"""What ``benchmarks.tune`` searches of each model."""

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

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

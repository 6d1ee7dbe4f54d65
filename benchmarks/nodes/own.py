"""A user's own model, ``--model module:function``, as a row beside ours."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch.nn import Module
from torch_geometric.data import Data

from benchmarks.common import Fit, Trial
from benchmarks.nodes.models import METHODS, Method, defaults_of

IN = ("in_channels", "num_features", "num_node_features")
OUT = ("out_channels", "num_classes")


class OwnMethod(Method):
    """Builds a model by a function and runs it on ``(x, edge_index)``.

    The number of features goes to the parameter that is called ``in_channels``, ``num_features`` or
    ``num_node_features``, that of classes to ``out_channels`` or ``num_classes``; to the first and
    second parameter where there are none such. The others are settings.
    """

    function: Callable[..., Module]

    def __init__(self, data: Data, **options: Any) -> None:
        super().__init__(data)
        self.inputs = (data.x, data.edge_index)
        sizes = (data.num_features, self.num_classes)
        self.options = {**dict(zip(self.sizes(), sizes, strict=True)), **options}

    @classmethod
    def parameters(cls) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(cls.function).parameters)

    @classmethod
    def sizes(cls) -> tuple[str, str]:
        """The parameters that take the numbers of features and of classes."""
        names = list(cls.parameters())
        first = [name for name in names if name in IN] or names[:1]
        second = [name for name in names if name in OUT] or names[1:2]
        if not first or not second or first == second:
            raise ValueError("a model takes the numbers of features and of classes")
        return first[0], second[0]

    @classmethod
    def settings(cls) -> set[str]:
        return {
            name
            for name, parameter in cls.parameters().items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        } - {*cls.sizes()}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        return defaults_of(cls.function, cls.settings())

    def run(self, trials: Sequence[Trial], **training: Any) -> list[Fit]:
        try:
            return super().run(trials, **training)
        except (TypeError, ValueError, RuntimeError) as error:  # of the user's code, most often
            text = " ".join(str(error).split())
            if "'--model'" in text:
                raise
            raise ValueError(f"'--model' fails on (x, edge_index): {text}") from error

    def model(self) -> Module:
        try:
            model = type(self).function(**self.options)
        except TypeError as error:  # a setting is missing, most often
            raise TypeError(f"'--model' cannot be built of {self.options}: {error}") from error
        if not isinstance(model, Module):
            raise TypeError(
                f"Expected '--model' to build a 'torch.nn.Module' (got a {type(model).__name__})"
            )
        return model


def find_method(name: str) -> type[Method]:
    """The method of a name of ours or of ``module:function``.

    Raises:
        ValueError: If there is none.
    """
    if name in METHODS:
        return METHODS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(
            f"There is no model '{name}': expected one of {', '.join(METHODS)}, or module:function"
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"Model '{name}' cannot be imported: {error}") from error
    try:
        method: Any = type("OwnMethod", (OwnMethod,), {"function": staticmethod(found)})
        method.sizes()
    except (TypeError, ValueError) as error:
        raise ValueError(f"Model '{name}' cannot be built: {error}") from error
    return method

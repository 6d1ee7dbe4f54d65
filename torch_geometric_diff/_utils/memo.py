"""What was computed of Tensors, for as long as these are the same and were not changed in place."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


def version(x: Tensor) -> int | None:
    """A number that every change in place raises; None of a Tensor that does not count them."""
    return None if x.is_inference() else x._version


class Identity:
    """Tensors and their versions, which tell without a look at a value that nothing has changed."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._seen = [(weakref.ref(x), version(x)) for x in tensors]

    def is_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the same Tensors, none of them changed since."""
        if len(tensors) != len(self._seen):
            return False
        for (ref, number), x in zip(self._seen, tensors, strict=True):
            if ref() is not x or number is None or number != version(x):
                return False
        return True


class PerTensor:
    """Results of functions of a Tensor, outside of it."""

    def __init__(self) -> None:
        self._results: Any = WeakTensorKeyDictionary()

    def get(self, function: Callable[[Tensor], Any], x: Tensor) -> Any:
        """``function(x)``, computed once for each version of ``x``."""
        number = version(x)
        if number is None:
            return function(x)
        results = self._results.setdefault(x, {})
        if function not in results or results[function][0] != number:
            results[function] = (number, function(x))
        return results[function][1]

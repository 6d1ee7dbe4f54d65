"""The features file: what a backbone saw in a split of images, and where it came from.

A safetensors file (nothing is unpickled) with ``features`` [n, d] (float16 or float32), ``labels``
[n] (int64), ``base_mean`` [d] (float32, the mean feature of the base classes, which the
preprocessing subtracts) and one JSON object ``meta`` in its header: dataset, backbone, split,
checkpoint hash and the settings of the transform.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.common import write_atomically

META = ("dataset", "backbone", "split")


class Features(NamedTuple):
    """Features in float32, their labels, the mean of the base classes and the file's metadata."""

    features: Tensor  # [n, d]
    labels: Tensor  # [n]
    base_mean: Tensor  # [d]
    meta: dict[str, Any]


def _check(features: Tensor, labels: Tensor, base_mean: Tensor, where: str) -> None:
    """Raise a ValueError that starts with ``where`` if the three tensors do not fit together."""
    if features.dim() != 2 or not features.is_floating_point():
        raise ValueError(
            f"{where}: 'features' must be a floating [n, d] tensor "
            f"(got {features.dtype} {list(features.shape)})"
        )
    if labels.shape != features.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"{where}: 'labels' must be int64 [{len(features)}] "
            f"(got {labels.dtype} {list(labels.shape)})"
        )
    if base_mean.shape != features.shape[1:]:
        raise ValueError(
            f"{where}: 'base_mean' must be [{features.shape[1]}] (got {list(base_mean.shape)})"
        )
    for name, tensor in (("features", features), ("base_mean", base_mean)):
        finite = torch.isfinite(tensor)
        if not finite.all():
            raise ValueError(
                f"{where}: '{name}' holds NaN or infinite values "
                f"({int((~finite).sum())} of {tensor.numel()})"
            )


def save_features(
    path: str | Path,
    features: Tensor,
    labels: Tensor,
    meta: dict[str, Any],
    *,
    base_mean: Tensor,
    half: bool = False,
) -> None:
    """Write a features file, whole or not at all.

    Args:
        path: The file; its folder is made.
        features: Features [n, d], finite.
        labels: Class of each row, int64 [n].
        meta: JSON-ready facts; ``dataset``, ``backbone`` and ``split`` must be among them.
        base_mean: Mean feature of the base classes [d].
        half: Store the features as float16 (a relative error of at most 2^-11).

    Raises:
        ValueError: If shapes do not fit, a value is not finite (after rounding to float16 too), or
            ``meta`` lacks a field.
    """
    missing = [name for name in META if name not in meta]
    if missing:
        raise ValueError(f"'meta' lacks {missing} (got {sorted(meta)})")
    features = features.to(torch.float16 if half else torch.float32).contiguous()
    _check(features, labels, base_mean, f"'{path}'")
    tensors = {
        "features": features,
        "labels": labels.contiguous(),
        "base_mean": base_mean.float().contiguous(),
    }
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, {"meta": json.dumps(meta, sort_keys=True)})


def load_features(
    path: str | Path,
    dataset: str | None = None,
    backbone: str | None = None,
    split: str | None = None,
) -> Features:
    """Read a features file and check that it is what the caller expects.

    Args:
        path: The file.
        dataset: Expected dataset, or ``None`` for any.
        backbone: Expected backbone, or ``None`` for any.
        split: Expected split, or ``None`` for any.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no features file, holds NaN or infinite values, or comes from another
            dataset, backbone or split.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no features file '{path}'; 'python -m fewshot.embed' writes one from a checkpoint"
        )
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["meta"])
            features, labels, base_mean = (
                file.get_tensor(name) for name in ("features", "labels", "base_mean")
            )
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"'{path}' is not a features file ({error})") from error
    for name, expected in zip(META, (dataset, backbone, split), strict=True):
        if expected is not None and meta.get(name) != expected:
            raise ValueError(
                f"'{path}' holds features of {name} '{meta.get(name)}' (expected '{expected}')"
            )
    _check(features, labels, base_mean, f"'{path}'")
    return Features(features.float(), labels, base_mean, meta)

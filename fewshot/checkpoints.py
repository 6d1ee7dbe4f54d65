"""Checkpoints in safetensors: tensors and one JSON header; nothing is unpickled from disk."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.common import write_atomically

from .backbones import Backbone, build_backbone
from .images import SPECS


def save_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write ``tensors`` and the JSON-ready ``meta``, whole or not at all."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, {"meta": json.dumps(meta, sort_keys=True)})


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint '{path}'; 'python -m fewshot.train_backbone' writes one"
        )
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["meta"])
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"'{path}' is not a backbone checkpoint ({error})") from error


def load_backbone(path: str | Path) -> tuple[Backbone, dict[str, Any]]:
    """Rebuild the backbone of a ``best.safetensors``; returns it in eval mode, with the metadata.

    The metadata gains ``checkpoint``, the SHA-256 of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of a backbone.
    """
    tensors, meta = load_checkpoint(path)
    try:
        channels = SPECS[meta["dataset"]].channels
        backbone = build_backbone(meta["backbone"], channels, meta["image_size"])
        backbone.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"'{path}' does not hold the weights of a backbone ({first})") from error
    meta["checkpoint"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return backbone.eval(), meta

"""Data sets of PyG by class and name, from the files as PyG lays them out."""

import contextlib
import importlib
import inspect
import io
import random
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric import seed_everything
from torch_geometric.data import Data

from .._utils.files import make_folder
from .files import check_graph


def read_pyg(name: str, root: Path) -> Data:
    """A graph of ``torch_geometric.datasets``.

    The raw files are only read and nothing is written beside them: what PyG keeps of its processing
    goes into a temporary folder. They are looked for in ``root/CLASS``, in lower case too, and in
    ``root``; missing ones are downloaded.

    Args:
        name (str): ``'CLASS:NAME'``, or ``'CLASS'`` of a data set with one graph.
        root (Path): Folder of data sets.

    Raises:
        ValueError: If there is no such data set, it is no node classification on one graph, or its
            files are damaged.
        FileNotFoundError: If files are missing and cannot be downloaded; names them.
    """
    kind, _, graph = name.partition(":")
    cls: Any = getattr(importlib.import_module("torch_geometric.datasets"), kind, None)
    if not inspect.isclass(cls):
        raise ValueError(f"PyG has no data set '{kind}' (got '{name}')")
    parameters = inspect.signature(cls.__init__).parameters
    needs = [
        parameter.name
        for parameter in list(parameters.values())[1:]
        if parameter.default is parameter.empty
        and parameter.name != "root"
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needs not in ([], ["name"]) or (needs and not graph) or (graph and "name" not in parameters):
        form = f"{kind}:NAME" if "name" in parameters else kind
        raise ValueError(f"Expected '{form}' with no further options (got '{name}')")
    options = {"name": graph} if graph else {}
    if "root" not in parameters:  # it needs no files
        with _seeded():
            dataset: Any = cls()
        if len(dataset) != 1 or not isinstance(dataset[0], Data):
            raise ValueError(f"'{name}' is not one graph with one kind of nodes")
        return check_graph(dict(dataset[0]), name)

    with tempfile.TemporaryDirectory() as temporary:
        reader = _reader(cls, Path(temporary))
        folders = [root / kind, root / kind.lower(), root]
        for folder in folders:
            try:
                dataset = _load(reader, folder, options, name, download=False)
                break
            except _Missing:
                continue
        else:
            dataset = _load(reader, folders[1], options, name, download=True)
        if len(dataset) != 1 or not isinstance(dataset[0], Data):
            raise ValueError(f"'{name}' is not one graph with one kind of nodes")
        data = dataset[0]
    return check_graph(dict(data), name)


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers every time, so that a graph that is made up is the same."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_everything(0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


class _Missing(Exception):
    """Raw files are not there."""


def _reader(cls: Any, processed: Path) -> Any:
    """The class with its processed files in a folder of ours and downloads where we allow them."""

    class Reader(cls):
        allowed = False
        missing: tuple[str, list[str]] = ("", [])

        @property
        def processed_dir(self) -> str:
            return str(processed)

        def _download(self) -> None:
            raw = [Path(path) for path in self.raw_paths]
            missing = [path.name for path in raw if not path.exists()]
            if not missing:
                return
            if not type(self).allowed:
                raise _Missing
            type(self).missing = (self.raw_dir, missing)
            with make_folder(self.raw_dir):
                self.download()
            type(self).missing = ("", [])

    Reader.__name__ = cls.__name__
    return Reader


def _load(reader: Any, folder: Path, options: Any, name: str, download: bool) -> Any:
    reader.allowed = download
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            return reader(str(folder), **options)
    except _Missing:
        raise
    except Exception as error:  # of many kinds, from readers of many formats
        text = " ".join(str(error).split()) or type(error).__name__
        if reader.missing[1]:
            raw, missing = reader.missing
            raise FileNotFoundError(
                f"'{raw}' lacks {', '.join(missing)} and they could not be downloaded ({text})"
            ) from error
        raise ValueError(f"'{name}' in '{folder}' cannot be read: {text}") from error

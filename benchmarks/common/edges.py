"""The edges of a graph in a file, a share of them, block by block: no process holds them all."""

import gzip
import itertools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from torch_geometric_diff.data.ogb import find_ogb

_BLOCK = 1 << 20
_SKIP = 1 << 22  # bytes


class EdgeFile:
    """A file of edges: ``.npy`` (mapped), ``.npz`` (``edge_index`` or ``edges``, streamed out of
    it), or the folder of an OGB set in either layout.

    Args:
        source (str or Path): The file, the folder, or the name of an official set.
        root (str or Path): Where official sets lie.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no edges; names it.
    """

    def __init__(self, source: str | Path, root: str | Path = "dataset") -> None:
        self.path = Path(source)
        if self.path.suffix not in (".npy", ".npz"):
            raw = find_ogb(source, root) / "raw"
            self.path = raw / "data.npz"
            if not self.path.exists():
                self.path = raw / "edge.csv.gz"
        if not self.path.exists():
            raise FileNotFoundError(f"'{self.path}' does not exist")

    def share(self, rank: int, size: int) -> Iterator[np.ndarray]:
        """Every rank's edges, [2, E] a block; together they are all, in their order."""
        try:
            if self.path.suffix == ".gz":
                yield from self._of_csv(rank, size)
            elif self.path.suffix == ".npy":
                array = np.load(self.path, mmap_mode="r", allow_pickle=False)
                array = array if len(array) == 2 else array.T
                first, last = _bounds(array.shape[1], rank, size)
                for start in range(first, last, _BLOCK):
                    yield np.array(array[:, start : min(start + _BLOCK, last)])
            else:
                yield from self._of_archive(rank, size)
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"'{self.path}' is damaged or holds no edges: {error}") from error

    def _of_csv(self, rank: int, size: int) -> Iterator[np.ndarray]:
        with gzip.open(self.path.with_name("num-edge-list.csv.gz"), "rt") as file:
            count = sum(int(line) for line in file)
        first, last = _bounds(count, rank, size)
        with gzip.open(self.path, "rt") as file:
            lines = itertools.islice(file, first, last)
            while block := list(itertools.islice(lines, _BLOCK)):
                yield np.loadtxt(block, delimiter=",", dtype=np.int64, ndmin=2).T

    def _of_archive(self, rank: int, size: int) -> Iterator[np.ndarray]:
        with zipfile.ZipFile(self.path) as archive:
            name = next(
                (n for n in ("edge_index", "edges") if f"{n}.npy" in archive.namelist()), ""
            )
            with archive.open(f"{name}.npy") as one, archive.open(f"{name}.npy") as other:
                shape, fortran, dtype = _header(one)
                _header(other)
                rows = shape[0] != 2  # an edge a row
                count = shape[0] if rows else shape[1]
                first, last = _bounds(count, rank, size)
                if rows != fortran:  # both ends of an edge side by side
                    _skip(one, 2 * first * dtype.itemsize)
                    for start in range(first, last, _BLOCK):
                        number = min(_BLOCK, last - start)
                        yield _take(one, 2 * number, dtype).reshape(number, 2).T
                    return
                _skip(one, first * dtype.itemsize)
                _skip(other, (count + first) * dtype.itemsize)
                for start in range(first, last, _BLOCK):
                    number = min(_BLOCK, last - start)
                    yield np.stack([_take(each, number, dtype) for each in (one, other)])


def _bounds(count: int, rank: int, size: int) -> tuple[int, int]:
    return count * rank // size, count * (rank + 1) // size


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = read[version[0]](file)
    if len(shape) != 2 or 2 not in shape or dtype.kind not in "iu":
        raise ValueError(f"edges have shape {shape} and type {dtype}, expected two whole ends")
    return shape, fortran, dtype


def _skip(file: Any, size: int) -> None:
    while size > 0:
        size -= len(_read(file, min(size, _SKIP)))


def _read(file: Any, size: int) -> bytes:
    found = file.read(size)
    if len(found) < size:
        raise EOFError("it ends before its edges do")
    return found


def _take(file: Any, count: int, dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(_read(file, count * dtype.itemsize), dtype).astype(np.int64)

"""Result rows: JSON lines that survive a kill."""

import contextlib
import gzip
import json
import os
import platform
import secrets
import weakref
import zlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from torch_geometric_diff._utils.files import check_regular, open_locked, write_atomically

Row = dict[str, Any]


def environment() -> Row:
    """The date, versions and machine that a result depends on, to be stored in every row.

    Example:
        >>> sorted(environment())[:3]
        ['date', 'kernels', 'machine']
    """
    import torch

    from torch_geometric_diff import kernels

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = ("torch", "torch_geometric", "torch_geometric_diff", "numpy")
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        **{package: installed(package.replace("_", "-")) for package in packages},
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "kernels": [name for name, reason in kernels().items() if reason is None],
    }


def _parse(path: Path) -> tuple[list[Row], int]:
    """The rows of a file and the length in bytes of its whole lines."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"'{path}' is damaged: {error}") from error
    whole = data.rfind(b"\n") + 1  # a last line without a line end was cut by a kill
    rows = []
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(
                f"'{path}' line {number} is not a JSON object (got {line[:60]!r}); "
                "the file is damaged or no result file"
            )
        rows.append(row)
    return rows, whole


def read_rows(paths: str | Path | Iterable[str | Path]) -> list[Row]:
    """Read all rows of one or several result files, ``.jsonl`` or ``.jsonl.gz``.

    A half last line, cut by a kill, is left out.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a line is damaged; names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_rows(f"{folder}/rows.jsonl.gz", [{"seed": 0}, {"seed": 1}])
        ...     read_rows(f"{folder}/rows.jsonl.gz")
        [{'seed': 0}, {'seed': 1}]
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    return [row for path in paths for row in _parse(Path(path))[0]]


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write a compressed result file whole; the same rows give the same bytes.

    Raises:
        ValueError: If ``path`` does not end in ``.gz``.
        OSError: If the file cannot be written; an old one is left as it is.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_rows(f"{folder}/rows.jsonl.gz", [{"seed": 0}])
        ...     read_rows(f"{folder}/rows.jsonl.gz")
        [{'seed': 0}]
    """
    if Path(path).suffix != ".gz":
        raise ValueError(f"Expected a file that ends in '.jsonl.gz' (got '{path}')")
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with write_atomically(path) as temporary:
        temporary.write_bytes(gzip.compress(lines.encode(), mtime=0))


def _close(file: IO[bytes], path: Path, folders: list[Path]) -> None:
    """Give the file free; without rows it goes, and so do the folders that were made for it."""
    if os.fstat(file.fileno()).st_size == 0:
        with contextlib.suppress(OSError):  # it is gone, or a folder holds something else
            path.unlink()
            for folder in folders:
                folder.rmdir()
    file.close()


def new_path(folder: str | Path, name: str) -> Path:
    """The path of a new result file ``FOLDER/NAME-TIME.jsonl`` that no other run takes."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path(folder) / f"{name}-{stamp}-{secrets.token_hex(3)}.jsonl"


class ResultFile:
    """An append-only file of JSON lines, one per finished trial, of one process at a time.

    Args:
        path (str or Path): The file, which no other may write as long as this object lives. It
            and its folder vanish if no row comes.
        key (sequence of str): The fields that identify a trial. (default: ``('split', 'init')``)
        resume (bool): Take up an existing file; without it, an existing file with rows is an error.
            (default: ``False``)

    Raises:
        ValueError: If the file exists and ``resume`` is false, if a line is damaged or lacks a
            field of ``key``, if another run writes the file, if it is no regular one, or
            a compressed one, which is only read.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = ResultFile(f"{folder}/rows.jsonl")
        ...     file.append({"split": 0, "init": 0, "acc": 0.8})
        ...     file.finished
        {(0, 0)}
    """

    def __init__(
        self,
        path: str | Path,
        key: Sequence[str] = ("split", "init"),
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.key = tuple(key)
        self.rows: list[Row] = []
        if self.path.suffix == ".gz":
            raise ValueError(
                f"'{path}' is compressed and rows are appended: name the file without '.gz'"
            )
        check_regular(self.path)
        new = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(self.path)  # fail now, not after the first trial
        self._end = weakref.finalize(self, _close, file, self.path, new)
        try:
            self._take_up(resume)
        except BaseException:
            self._end()
            raise

    def _take_up(self, resume: bool) -> None:
        """Read the rows that are there and cut a half last line."""
        size = self.path.stat().st_size
        if size > 0 and not resume:
            raise ValueError(
                f"'{self.path}' already holds results; pass '--resume' to continue it "
                "or choose another '--out'"
            )
        self.rows, whole = _parse(self.path)
        for number, row in enumerate(self.rows, start=1):
            missing = [name for name in self.key if name not in row]
            if missing:
                raise ValueError(f"'{self.path}' line {number} lacks {missing}; not such a result")
        if whole < size:
            os.truncate(self.path, whole)

    @property
    def finished(self) -> set[tuple[Any, ...]]:
        """The keys of all trials in the file."""
        return {tuple(row[name] for name in self.key) for row in self.rows}

    def append(self, row: Row) -> None:
        """Write one trial so that it survives a kill right after."""
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        with open(self.path, "ab", buffering=0) as file:
            start = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(f"'{self.path}' cannot be written whole: the disk is full")
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, start)  # a full disk must not leave half a line
                raise
        self.rows.append(row)

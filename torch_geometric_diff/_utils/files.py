"""Files that are whole or absent, locks on them, and folders that do not stay empty."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def make_folder(folder: str | Path) -> Iterator[None]:
    """Make a folder for what is written into it, and take it back if it stays empty.

    Raises:
        OSError: If the folder cannot be made.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with make_folder(f"{folder}/new"):
        ...         pass  # nothing is written
        ...     Path(folder, "new").exists()
        False
    """
    folder = Path(folder)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in new:  # the innermost first
            try:
                path.rmdir()
            except OSError:  # it holds something
                break


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it on success and vanishes on failure.

    Raises:
        OSError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_atomically(f"{folder}/file.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     Path(folder, "file.txt").read_text()
        'whole'
    """
    path = Path(path)
    check_regular(path)
    with make_folder(path.parent):
        handle, name = tempfile.mkstemp(path.suffix, f".{path.name}.", path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes private files; results are not
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def check_regular(path: Path) -> None:
    """Refuse a device, a pipe or the like, which cannot be replaced by a file (ValueError)."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"Expected '{path}' to be a regular file (got a device or a pipe)")


def open_locked(path: str | Path) -> IO[bytes]:
    """Open a file for appending, made if it is missing, that no other open file has locked.

    The lock ends with the file or its process, however that ends.

    Raises:
        ValueError: If another run holds it.
        OSError: If the file cannot be written.
    """
    while True:
        file = open(path, "ab")  # noqa: SIM115
        try:
            if sys.platform == "win32":
                file.seek(1 << 40)  # beyond all rows, which others may read
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise ValueError(
                f"'{path}' is in use by another run; wait for its end or choose another file"
            ) from error
        file.close()  # its owner has just removed it


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep others from writing a file meanwhile, by a file ``PATH.lock`` beside it.

    Raises:
        ValueError: If another run has it.
        OSError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(f"{folder}/file"):
        ...     try:
        ...         with locked(f"{folder}/file"):
        ...             pass
        ...     except ValueError as error:
        ...         print("in use by another run" in str(error))
        True
    """
    lock = Path(f"{path}.lock")
    with make_folder(lock.parent):
        file = open_locked(lock)
        try:
            yield
        finally:
            if sys.platform != "win32":
                lock.unlink(missing_ok=True)  # first: whoever opens it now finds it gone
            file.close()
            if sys.platform == "win32":
                lock.unlink(missing_ok=True)

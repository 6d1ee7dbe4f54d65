"""Files that are whole or absent, and folders that do not stay empty."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def check_writable(path: str | Path) -> None:
    """Try whether a file can be written, and leave everything as it was.

    Raises:
        OSError: If the file cannot be written, or its folder cannot be made.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(f"{folder}/new/file.txt")
        ...     Path(folder, "new").exists()
        False
    """
    path = Path(path)
    with make_folder(path.parent):
        existed = path.exists()
        with open(path, "ab"):
            pass
        if not existed:
            path.unlink()

"""Files that commands read and write."""

import codecs
from pathlib import Path

from torch_geometric_diff._utils.files import check_regular, make_folder


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
    check_regular(path)
    with make_folder(path.parent):
        existed = path.exists()
        with open(path, "ab"):
            pass
        if not existed:
            path.unlink()


def read_text(path: str | Path) -> str:
    """A text file in UTF-8, or in UTF-16 with its byte order mark.

    Raises:
        ValueError: If it is in another encoding; names the file.
        OSError: If it cannot be read.
    """
    data = Path(path).read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no text in UTF-8 ({error}); save it in UTF-8") from error

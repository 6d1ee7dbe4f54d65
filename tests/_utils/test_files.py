"""Texts in every usual encoding are read, and others refused by name."""

import codecs
from pathlib import Path

import pytest

from benchmarks.common.files import check_writable, read_text
from torch_geometric_diff._utils.files import write_atomically

TEXT = "filename,label\né.png,naïve\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
)
def test_encodings(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    assert read_text(path) == TEXT


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le"])
def test_other_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(TEXT.encode(encoding))
    with pytest.raises(ValueError, match="table.csv' is no text in UTF-8 .*save it in UTF-8"):
        read_text(path)


def test_devices_are_left_alone() -> None:
    if not Path("/dev/null").is_char_device():
        pytest.skip("there is no such device")
    with pytest.raises(ValueError, match="'/dev/null' to be a regular file"):
        check_writable("/dev/null")
    with pytest.raises(ValueError, match="regular file"), write_atomically("/dev/null"):
        pass
    assert Path("/dev/null").is_char_device()

"""Files are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from recbole_mars.data.files import sha256_of_file, write_whole
from recbole_mars.data.plain_table import plain_table


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("content", ["ü\n", b"\x00\xff", memoryview(b"abc")])
def test_writing(tmp_path, content, durable: bool) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")
    write_whole(file, content, durable=durable)
    expected = content.encode() if isinstance(content, str) else bytes(content)
    assert file.read_bytes() == expected
    assert sha256_of_file(file) == hashlib.sha256(expected).hexdigest()
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "cut \ud83d")

    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_whole(file, b"new", durable=True)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    write_whole(file, "cut \ud83d", errors="replace")
    assert file.read_bytes() == b"cut ?"


def test_plain_table() -> None:
    assert plain_table(["", "a"], [["long", "1"], ["b", ""]]) == "      a\n----  -\nlong  1\nb"

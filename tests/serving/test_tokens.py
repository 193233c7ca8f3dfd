"""Names found by number and by name, in memory and mapped from the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_mars.serving import TokenTable, tokens

WORDS = ["b", "a", "", "ä ö", "line\nend", "a" * 1000, "0", "00"]


@pytest.mark.parametrize("saved", [False, True])
def test_every_token_is_found_where_it_is(saved: bool, tmp_path: Path) -> None:
    table = TokenTable(WORDS)
    if saved:
        table.save(tmp_path / "t")
        table = TokenTable.load(tmp_path / "t")
    assert list(table) == WORDS
    assert len(table) == len(WORDS)
    assert [table.find(word) for word in WORDS] == list(range(len(WORDS)))
    strange = ["c", "A", "000", "line"]
    assert [table.find(word) for word in strange] == [-1] * 4
    mixed = table.find_many([*WORDS, *strange, *WORDS])
    assert mixed.tolist() == [*range(len(WORDS)), *[-1] * 4, *range(len(WORDS))]
    assert not len(table.find_many([]))
    with pytest.raises(IndexError):
        table[len(WORDS)]


@pytest.mark.parametrize("words", [[], [""]])
def test_few_tokens(words: list[str], tmp_path: Path) -> None:
    TokenTable(words).save(tmp_path / "t")
    table = TokenTable.load(tmp_path / "t")
    assert list(table) == words
    assert table.find("x") == -1
    assert table.find_many(["x", "y"]).tolist() == [-1, -1]


def test_equal_digests_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_code", lambda word: 7)
    table = TokenTable(["x", "y", "z"])
    assert [table.find(word) for word in ("z", "x", "y", "w")] == [2, 0, 1, -1]
    assert table.find_many(["z", "x", "y", "w"]).tolist() == [2, 0, 1, -1]


def test_a_token_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens must differ, got 'x' twice"):
        TokenTable(["x", "y", "x"])

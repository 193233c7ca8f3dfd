"""`offline`: what is wrong with its options ends it before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_mars.serving.__main__ import main


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--workers": "3"}, "--workers 3 needs --ray-address"),
        ({"--snapshots": "file"}, "file must be a folder of snapshots, is a file"),
        ({"--keep": "0"}, "--keep must be >= 1, got 0"),
    ],
)
def test_wrong_options_end_with_one_line(
    changes: dict[str, str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    named = {"--model": "model", "--snapshots": "snapshots", "--store": "store", **changes}
    with pytest.raises(SystemExit) as ended:
        main(["offline", *(text for option in named.items() for text in option)])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

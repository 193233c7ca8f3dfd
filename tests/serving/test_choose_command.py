"""`choose`: which versions there are, and which one answers."""

from __future__ import annotations

import pytest

from recbole_mars.serving import Snapshots
from recbole_mars.serving.__main__ import main


def test_versions_are_listed_and_chosen(tmp_path, capsys):
    snapshots = Snapshots(tmp_path)
    snapshots.publish(lambda folder: {"users": 5, "donors": 2})
    snapshots.publish(lambda folder: {"users": 6, "donors": 2, "training": {"step": 40}})
    main(["choose", "--snapshots", str(tmp_path)])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("  00000001  2")
    assert first.endswith("UTC  5 users, 2 donors")
    assert second.startswith("* 00000002  2")
    assert second.endswith("6 users, 2 donors, step 40 of streaming training")
    main(["choose", "00000001", "--snapshots", str(tmp_path)])
    assert capsys.readouterr().out.startswith("* 00000001")
    assert snapshots.current_name() == "00000001"


def test_a_damaged_version_is_listed_as_such(tmp_path, capsys):
    snapshots = Snapshots(tmp_path)
    for users in range(4):
        snapshots.publish(lambda folder, users=users: {"users": users, "donors": 0}, keep=9)
    (tmp_path / "00000001" / "manifest.json").write_text("{")
    (tmp_path / "00000002" / "manifest.json").unlink()
    main(["choose", "00000003", "--snapshots", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  00000001  damaged: ")
    assert "manifest.json is damaged" in lines[0]
    assert lines[1].startswith("  00000002  damaged: ")
    assert lines[2].startswith("* 00000003  2")
    assert lines[3].endswith("3 users, 0 donors")


def test_all_are_listed_where_none_is_known_as_current(tmp_path, capsys):
    Snapshots(tmp_path).publish(lambda folder: {})
    (tmp_path / "CURRENT").write_text("")
    main(["choose", "--snapshots", str(tmp_path)])
    told = capsys.readouterr()
    assert told.out.startswith("  00000001  2")
    assert "CURRENT must name a version, got ''; choose one: 00000001" in told.err
    main(["choose", "00000001", "--snapshots", str(tmp_path)])
    assert capsys.readouterr().out.startswith("* 00000001")


@pytest.mark.parametrize("name", ["00000007", "../x", ".."])
def test_what_is_not_there_is_refused(tmp_path, capsys, name):
    (tmp_path / "x").mkdir()
    Snapshots(tmp_path / "s").publish(lambda folder: {})
    with pytest.raises(SystemExit) as end:
        main(["choose", name, "--snapshots", str(tmp_path / "s")])
    assert end.value.code == 2
    assert "is not there; there are 00000001" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["choose", "00000001", "--snapshots", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_nothing_published_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["choose", "--snapshots", str(tmp_path / "none")])
    assert "has no snapshot yet" in capsys.readouterr().err

"""The commit of the package's own checkout, and of no other."""

import subprocess

import pytest

from recbole_mars.experiments import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    package = tmp_path / "project" / "recbole_mars"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    names = {"user.name": "a", "user.email": "a@b.c"}

    def git(*arguments):
        options = [word for key, value in names.items() for word in ("-c", f"{key}={value}")]
        command = ["git", *options, *arguments]
        done = subprocess.run(
            command, cwd=package.parent, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    return package, git


def test_the_commit_and_whether_the_code_differs(checkout):
    package, git = checkout
    assert provenance.commit() is None
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert provenance.commit() == head
    (package.parent / "results.json").write_text("{}")  # no code
    assert provenance.commit() == head
    (package / "a.py").write_text("2\n")
    assert provenance.commit() == f"{head}-dirty"
    git("commit", "-am", "second")
    (package / "new.py").write_text("")
    assert provenance.commit() == git("rev-parse", "HEAD") + "-dirty"


def test_a_checkout_around_an_installed_package_is_another_project(checkout, monkeypatch):
    package, git = checkout
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    inside = package.parent / "venv" / "recbole_mars"
    inside.mkdir(parents=True)
    monkeypatch.setattr(provenance, "_PACKAGE", inside)
    assert provenance.commit() is None


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None


def test_the_machine_has_a_name():
    found = provenance.machine()
    assert found["cpu"]
    assert found["threads"] >= 1

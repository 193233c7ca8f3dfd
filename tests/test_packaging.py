"""What is declared, what is shipped and what is there are the same."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import recbole_mars
from recbole_mars.plugin.config import properties_folder

ROOT = Path(__file__).resolve().parents[1]
PROPERTIES = ROOT / "properties"
YAML_FILES = sorted(PROPERTIES.rglob("*.yaml"))
TOP_LEVEL = ("README.md", "LICENSE", "CHANGELOG.md", "run_recbole_mars.py")
MODULE_OF = {
    "faiss-cpu": "faiss",
    "huggingface-hub": "huggingface_hub",
    "pillow": "PIL",
    "prometheus-client": "prometheus_client",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def supported_pythons() -> list[str]:
    allowed = SpecifierSet(SETUP["options"]["python_requires"])
    return [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


def third_party_imports() -> set[str]:
    """First names of all absolute imports in the package that are not Python's own."""
    names = set()
    for file in (ROOT / "recbole_mars").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).split(".")[0])
    return names - sys.stdlib_module_names - {"recbole_mars"}


def test_version_has_one_source_and_an_entry_in_the_changelog():
    assert SETUP["metadata"]["version"] == "attr: recbole_mars.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", recbole_mars.__version__)
    assert f"\n## [{recbole_mars.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_supported_pythons_agree():
    prefix = "Programming Language :: Python :: 3."
    classifiers = SETUP["metadata"]["classifiers"].split("\n")
    assert supported_pythons() == [
        line[len(prefix) - 2 :] for line in classifiers if line.startswith(prefix)
    ]
    lowest, *_, highest = (f"({version.replace('.', ', ')})" for version in supported_pythons())
    assert f"{lowest} <= sys.version_info[:2] <= {highest}" in (ROOT / "Makefile").read_text()
    lowest = supported_pythons()[0].replace(".", "")
    assert f'target-version = "py{lowest}"' in (ROOT / "ruff.toml").read_text()


@pytest.mark.skipif(sys.version_info < (3, 10), reason="sys.stdlib_module_names is of Python 3.10")
def test_imports_are_declared():
    extras = SETUP["options.extras_require"]
    declared = [SETUP["options"]["install_requires"]]
    declared += [extras[name] for name in ("serving", "timm", "tuning")]
    required = {
        canonicalize_name(Requirement(line).name)
        for part in declared
        for line in part.split("\n")
        if line
    }
    assert third_party_imports() <= {MODULE_OF.get(name, name) for name in required}


def test_packages_are_the_folders():
    modules = (ROOT / "recbole_mars").rglob("__init__.py")
    folders = {".".join(file.relative_to(ROOT).parts[:-1]) for file in modules}
    assert set(SETUP["options"]["packages"].split()) == folders | {"recbole_mars.properties"}


def test_properties_are_found():
    assert YAML_FILES
    found = properties_folder()
    assert sorted(file.relative_to(found) for file in found.rglob("*.yaml")) == [
        file.relative_to(PROPERTIES) for file in YAML_FILES
    ]


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: str(file.relative_to(PROPERTIES)))
def test_yaml_parses(file):
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    assert content


def test_sdist_and_wheel_hold_everything(tmp_path):
    pytest.importorskip("build")
    source = tmp_path / "source"
    for folder in ("recbole_mars", "properties"):
        shutil.copytree(ROOT / folder, source / folder)
    for file in ("setup.cfg", "pyproject.toml", "MANIFEST.in", *TOP_LEVEL):
        shutil.copy(ROOT / file, source)
    # builds the wheel from the sdist, so what the wheel holds, the sdist holds too
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,) = tmp_path.glob("*.whl")
    modules = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "recbole_mars").rglob("*")
        if file.suffix in (".py", ".css", ".html", ".js")
    }
    settings = {f"recbole_mars/{file.relative_to(ROOT).as_posix()}" for file in YAML_FILES}
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped == modules | settings

    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert {f"recbole_mars-{recbole_mars.__version__}/{file}" for file in TOP_LEVEL} <= set(
            archive.getnames()
        )

"""The rules of the house: who may import whom, public names, and the size of a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "recbole_mars"
MAX_LINES = 400
TOP = "the top level"

MATHEMATICS = {
    "data",
    "features",
    "agreement",
    "alignment",
    "retrieval",
    "augmentation",
    "ctr",
    "evaluation",
}
MAY_IMPORT: dict[str, set[str]] = {
    "data": set(),
    "features": {"data"},
    "agreement": {"data"},
    "alignment": {"data"},
    "retrieval": {"data"},
    "ctr": {"data"},
    "evaluation": {"data"},
    "augmentation": {"data", "retrieval"},
    "serving": MATHEMATICS,
    "plugin": MATHEMATICS | {"serving"},
    "experiments": {"data", "evaluation", "plugin"},
    TOP: MATHEMATICS | {"serving", "plugin", "experiments"},
}


def imported_modules(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything imported in a file of `package`, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import name`: the name may be a module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def defines_all(tree: ast.Module) -> bool:
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )


def violations(package: Path) -> list[str]:
    """What breaks the rules in the tree of `package`, as `file:line: why`."""
    rooms = {file.relative_to(package).parts[0] for file in package.glob("*/**/*.py")}
    found = [f"{room}: no import rule for this folder" for room in rooms - set(MAY_IMPORT)]
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        room = name.parts[0] if len(name.parts) > 1 else TOP
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        lines = text.count("\n")
        if lines > MAX_LINES:
            found.append(f"{name}:{lines}: longer than {MAX_LINES} lines")
        if file.name == "__init__.py" and not defines_all(tree):
            found.append(f"{name}:1: no __all__")
        for line, module in imported_modules(tree, [package.name, *name.parts[:-1]]):
            first, second = [*module.split("."), ""][:2]
            target = second if second in rooms else TOP
            if module == f"{package.name}.__version__":
                continue  # a constant, which results and files carry
            if module.endswith(".*"):
                found.append(f"{name}:{line}: star import of {module[:-2]}")
            elif first == "recbole" and room != "plugin":
                found.append(f"{name}:{line}: only plugin may import recbole")
            elif first == package.name and target not in {room} | MAY_IMPORT.get(room, set()):
                found.append(f"{name}:{line}: {room} may not import {target}")
    return found


def test_package_keeps_the_rules():
    assert list(PACKAGE.glob("*/*.py"))
    assert violations(PACKAGE) == []


CLEAN = {
    "__init__.py": "import recbole_mars.plugin\n__all__ = []\n",
    "data/__init__.py": "import numpy\n__all__: list = []\n",
    "ctr/__init__.py": "from recbole_mars import __version__, data\n__all__ = []\n",
    "ctr/din.py": "from . import layers\nfrom ..data import schema\n",
    "ctr/layers.py": "import recbole_mars.ctr.din\nimport recbole_marsh\n",
    "retrieval/__init__.py": "from recbole_mars.data import InteractionLog\n__all__ = []\n",
    "augmentation/__init__.py": "from recbole_mars.retrieval import index\n__all__ = []\n",
    "plugin/__init__.py": "import recbole\nfrom recbole_mars.ctr import din\n__all__ = []\n",
    "experiments/__init__.py": "from recbole_mars.plugin import run\n__all__ = []\n",
}


def write_tree(root: Path, files: dict[str, str]) -> Path:
    package = root / "recbole_mars"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package


def test_clean_tree_has_no_violation(tmp_path):
    assert violations(write_tree(tmp_path, CLEAN)) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ctr/x.py", "import recbole_mars.retrieval.index", "ctr may not import retrieval"),
        ("ctr/x.py", "from recbole_mars import retrieval", "ctr may not import retrieval"),
        ("ctr/x.py", "from .. import plugin", "ctr may not import plugin"),
        ("ctr/x.py", "from ..plugin.models import MARS", "ctr may not import plugin"),
        ("ctr/x.py", "from recbole_mars import MARS", "ctr may not import the top level"),
        ("ctr/x.py", "def f():\n    import recbole_mars", "ctr may not import the top level"),
        ("data/x.py", "from recbole_mars.ctr import din", "data may not import ctr"),
        ("retrieval/x.py", "import recbole_mars.augmentation", "retrieval may not import augment"),
        ("experiments/x.py", "import recbole_mars.ctr", "experiments may not import ctr"),
        ("plugin/x.py", "import recbole_mars.experiments", "plugin may not import experiments"),
        ("serving/x.py", "import recbole_mars.plugin", "serving may not import plugin"),
        ("serving/x.py", "from recbole.config import Config", "only plugin may import recbole"),
        ("demo.py", "import recbole.quick_start", "only plugin may import recbole"),
        ("ctr/x.py", "import_module('recbole.model')", "only plugin may import recbole"),
        ("ctr/x.py", "importlib.import_module('recbole')", "only plugin may import recbole"),
        ("ctr/x.py", "from numpy import *", "star import of numpy"),
        ("ctr/x.py", "from .layers import *", "star import of recbole_mars.ctr.layers"),
        ("ctr/sub/__init__.py", "import numpy", "no __all__"),
        ("__init__.py", "print('__all__')", "no __all__"),
        ("utils/x.py", "import numpy", "no import rule"),
        ("ctr/x.py", "\n" * (MAX_LINES + 1), "longer than"),
    ],
)
def test_violation_is_found(tmp_path, name, text, expected):
    (found,) = violations(write_tree(tmp_path, {**CLEAN, "serving/y.py": "", name: text}))
    assert found.startswith(name if "import rule" not in expected else "utils")
    assert expected in found

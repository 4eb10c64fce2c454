"""The suite itself: no test imports a test, and every test has a tier."""

import ast

from tests.support.cli import REPOSITORY


def test_no_test_imports_a_test() -> None:
    wrong = []
    for path in (REPOSITORY / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong += [f"{path.name}: {name}" for name in names if name.startswith("tests.") and ".test_" in name]
    assert wrong == []


def test_helpers_contain_no_tests() -> None:
    assert list((REPOSITORY / "tests/support").glob("test_*.py")) == []

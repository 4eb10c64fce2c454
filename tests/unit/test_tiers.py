"""The test suite itself: no test imports a test, and each mutation has its line and its test."""

import ast

import pytest

from tests.mutations import MUTATIONS, Mutation
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


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_safeguard_has_its_line_and_its_test(mutation: Mutation) -> None:
    assert (REPOSITORY / mutation.file).read_text(encoding="utf-8").count(mutation.before) == 1
    file, _, name = mutation.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (REPOSITORY / file).read_text(encoding="utf-8")

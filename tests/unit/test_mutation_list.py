"""The mutations of `tests/mutations.py` name lines and tests that exist; `make test-slow` runs them."""

from collections import Counter

from tests.mutations import MUTATIONS, REPOSITORY


def test_each_mutation_changes_one_line_and_names_a_test() -> None:
    lines = {m.name: (REPOSITORY / m.file).read_text(encoding="utf-8").count(m.before) for m in MUTATIONS}
    assert lines == dict.fromkeys(lines, 1)
    for mutation in MUTATIONS:
        file, _, test = mutation.test.partition("::")
        assert f"def {test.partition('[')[0]}(" in (REPOSITORY / file).read_text(encoding="utf-8"), mutation.name
    assert max(Counter(m.name for m in MUTATIONS).values()) == 1

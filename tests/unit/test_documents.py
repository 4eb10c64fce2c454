"""Documents name only what exists: files, links, commands and flags."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY, run_cli

DOCUMENTS = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((REPOSITORY / "docs").glob("*.md"))
PROGRAMS = ("train", "train.interpolate", "train.soup", "export", "export.benchmark", "demo")
COMMAND = re.compile(r"(?:-m ([\w.]+)|\bminiclip ([a-z]+))([^\n`|&#]*)")
FLAG = re.compile(r"(?<!\S)--[a-z][\w.-]*")
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8").replace("\\\n", " ")


@cache
def flags_of(program: str, command: str) -> frozenset[str]:
    done = run_cli(program, *filter(None, [command]), "--help")
    return frozenset(re.findall(r"--[a-z][\w.-]*", done.stdout))


def flags_of_benchmark(module: str) -> frozenset[str]:
    """The flags in the source, because importing every benchmark would take long."""
    path = REPOSITORY / module.replace(".", "/")
    source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    return frozenset(re.findall(r'"(--[a-z][\w-]*)"', source))


def test_readme_has_at_most_150_lines() -> None:
    assert len(text_of(REPOSITORY / "README.md").splitlines()) <= 150


@documents
def test_links_lead_to_files_of_the_project(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text_of(document))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_path_in_the_architecture_exists() -> None:
    names = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text_of(REPOSITORY / "docs/architecture.md"))
    assert len(names) > 50
    assert [name for name in names if not (REPOSITORY / name).exists()] == []


def test_the_architecture_names_every_package() -> None:
    text = text_of(REPOSITORY / "docs/architecture.md")
    packages = [path.parent.relative_to(REPOSITORY) for path in REPOSITORY.glob("miniclip/*/__init__.py")]
    packages += [Path(name) for name in ("train", "export", "demo", "configs", "models", "benchmarks", "notebooks")]
    assert [str(package) for package in packages if f"`{package}/`" not in text] == []


@documents
def test_flags_in_documents_exist(document: Path) -> None:
    wrong = []
    for module, command, rest in COMMAND.findall(text_of(document)):
        if module.startswith("benchmarks."):
            known = flags_of_benchmark(module)
        elif module in PROGRAMS:
            known = flags_of(module, "")
        elif command in ("train", "export", "demo", "benchmark"):
            known = flags_of("export.benchmark" if command == "benchmark" else command, "")
        elif command:
            known = flags_of("miniclip.cli", command)
            if not known:
                continue  # prose, such as "miniclip is"
        else:
            continue
        wrong += [f"{module or command} {flag}" for flag in FLAG.findall(rest) if flag not in known | {"--debug"}]
    assert wrong == []

"""The command line for a newcomer: a folder is enough, mistakes are explained, and nothing is written there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from miniclip import __version__
from miniclip.cli import terminal
from miniclip.cli.main import COMMANDS, parser, run
from miniclip.cli.programs import PROGRAMS
from miniclip.cli.search import _split_folder
from miniclip.data.progress import ProgressBar
from miniclip.errors import MiniClipError
from miniclip.index.location import index_folder, is_up_to_date
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import find_bundle, released_bundle
from tests.support.cli import REPOSITORY, run_cli
from tests.support.drawing import draw_image


@pytest.fixture
def photos(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of twelve images, which is also the current folder."""
    folder = Path(shutil.copytree(image_folder, tmp_path / "photos"))
    monkeypatch.chdir(folder)
    return folder


def search(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[list[str], str]:
    """File names in the order of the results, and the text on standard error."""
    assert run(["search", *map(str, words), "--provider", "cpu"]) == 0
    out, err = capsys.readouterr()
    return [Path(line.split("\t")[1]).name for line in out.splitlines()], err


def test_current_folder_is_indexed_in_the_cache_and_searched(
    photos: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(photos.rglob("*"))
    names, said = search(capsys, "a red circle", "--bundle", tiny_bundle)
    assert len(names) == 10 and "red-circle" in names[0]
    assert "making an index" in said and "12 images embedded" in said
    again, said = search(capsys, "a red circle", "--bundle", tiny_bundle)
    assert again == names and said == ""
    assert sorted(photos.rglob("*")) == before
    elsewhere, _ = search(capsys, "a red circle", photos, "--bundle", tiny_bundle)
    assert elsewhere == names


def test_a_changed_folder_is_updated_unless_declined(
    photos: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MiniClipError, match="has no index yet; leave out --no-update"):
        run(["search", "red", "--bundle", str(tiny_bundle), "--no-update"])
    search(capsys, "red", "--bundle", tiny_bundle)
    draw_image("red", "circle", seed=7).save(photos / "new.png")
    old, _ = search(capsys, "red", "--bundle", tiny_bundle, "--no-update", "--top-k", 20)
    assert len(old) == 12
    new, said = search(capsys, "red", "--bundle", tiny_bundle, "--top-k", 20)
    assert len(new) == 13 and "1 images embedded, 12 unchanged" in said
    (photos / "new.png").unlink()
    assert len(search(capsys, "red", "--bundle", tiny_bundle, "--top-k", 20)[0]) == 12


@pytest.mark.parametrize("change", ["touch", "add", "remove", "caption", "unreadable"])
def test_every_change_of_a_folder_is_seen_without_lancedb(
    photos: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    search(capsys, "red", "--bundle", tiny_bundle)
    fingerprint = Bundle.open(tiny_bundle).fingerprint
    index = index_folder(str(photos), fingerprint)
    assert is_up_to_date(str(photos), index, fingerprint)
    image = sorted(photos.glob("*.png"))[0]
    if change == "touch":
        os.utime(image, ns=(1, 1))
    elif change == "add":
        shutil.copy(image, photos / "copy.png")
    elif change == "remove":
        image.unlink()
    elif change == "caption":
        with (photos / "metadata.csv").open("a") as file:
            file.write(f"{image.name},one more caption\n")
    else:
        (photos / "text.png").write_text("no image")
        search(capsys, "red", "--bundle", tiny_bundle)
        assert is_up_to_date(str(photos), index, fingerprint), "a file that is no image is not read twice"
        (photos / "text.png").write_text("still no image")
    assert not is_up_to_date(str(photos), index, fingerprint)
    search(capsys, "red", "--bundle", tiny_bundle)
    assert is_up_to_date(str(photos), index, fingerprint)


@pytest.mark.parametrize(
    ("typed", "words", "folder"),
    [
        (["beach"], ["beach"], "."),
        (["beach", "."], ["beach"], "."),
        (["beach", "sub"], ["beach"], "sub"),
        (["beach", "~/Pictures"], ["beach"], "~/Pictures"),
        (["beach", "./none"], ["beach"], "./none"),
        (["sub"], ["sub"], "."),
        (["a dog", "a puppy"], ["a dog", "a puppy"], "."),
        (["red/green"], ["red/green"], "."),
        (["--image", "a.png", "sub"], [], "sub"),
        (["a dog", "--image", "a.png", "sub"], ["a dog"], "sub"),
        (["--top-k", "3", "a dog", "--image", "a.png", "--json", "sub"], ["a dog"], "sub"),
        (["--image", "a.png", "--", "-5 degrees", "sub"], ["-5 degrees"], "sub"),
        (["beach", "--in", "sub"], ["beach"], "sub"),
        (["a dog", "sub", "--index", "i"], ["a dog", "sub"], None),
    ],
)
def test_the_last_argument_is_the_folder_if_it_is_one(
    photos: Path, typed: list[str], words: list[str], folder: str | None
) -> None:
    (photos / "sub").mkdir()
    assert _split_folder(parser().parse_args(["search", *typed])) == (words, folder)


def test_in_and_index_are_not_given_together(photos: Path) -> None:
    with pytest.raises(MiniClipError, match="--in and --index exclude each other"):
        run(["search", "red", "--in", ".", "--index", "i"])


def test_the_command_without_arguments_lists_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert 'miniclip search "a dog on the beach"' in shown and "miniclip demo ~/Pictures" in shown
    assert all(name in shown for name in ("search", "index", "models", *PROGRAMS))


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"miniclip {__version__}\n"


@pytest.mark.parametrize("command", [module.__name__.rpartition(".")[2].removesuffix("_run") for module in COMMANDS])
def test_every_help_has_a_description_and_ends_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        run([command, "--help"])
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert "example:" in lines and lines[-1].startswith(f"  miniclip {command}")
    usage, description = "\n".join(lines).split("\n\n")[:2]
    assert usage.startswith("usage:") and description[0].isupper() and description.endswith(".")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_of_a_program_ends_with_an_example(name: str) -> None:
    done = run_cli(PROGRAMS[name].module, "--help")
    lines = done.stdout.rstrip().splitlines()
    assert "example:" in lines and lines[-1].startswith(f"  python -m {PROGRAMS[name].module} --")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["serach", "x"], "there is no serach; did you mean search?"),
        (["search", "x", "--topk", "3"], "did you mean --top-k?"),
        (["search", "x", "--qqqq"], "unrecognized arguments: --qqqq (see miniclip search --help)"),
        (["search", "x", "--gallery", "exakt"], "there is no --gallery exakt; did you mean exact?"),
        (["qqq"], "there is no qqq; choose from"),
    ],
)
def test_a_typing_error_gets_a_suggestion(typed: list[str], meant: str) -> None:
    with pytest.raises(MiniClipError) as refused:
        run(typed)
    assert meant in str(refused.value)


def test_a_missing_image_is_reported_before_the_folder_is_indexed(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MiniClipError, match=r"nothing\.jpg: no such file"):
        run(["search", "--image", "nothing.jpg", "--in", str(photos)])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["search", "red", "--text-weight", "2"], "--text-weight must be from 0 to 1, got 2"),
        (["search", "red", "--minus-weight", "3"], "--minus-weight must be from 0 to 2, got 3"),
        (["search", "red", "--within", "3"], "--within needs a place as well, such as --near 48.86,2.35"),
        (["duplicates", "--threshold", "2"], "--threshold must be above 0 and at most 1, got 2"),
    ],
)
def test_a_wrong_value_is_reported_before_the_folder_is_indexed(
    typed: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MiniClipError) as refused:
        run([*typed, str(photos)])
    assert str(refused.value) == message and capsys.readouterr().err == ""


def test_an_error_names_the_typed_flag(tiny_index: Path) -> None:
    with pytest.raises(MiniClipError, match=r"^--text-weight must be from 0 to 1, got 2"):
        run(["search", "red", "--index", str(tiny_index), "--text-weight", "2"])


def test_debug_shows_the_cause_of_an_error() -> None:
    def miniclip(*words: str, **environment: str) -> str:
        command = [sys.executable, "-m", "miniclip", "info", "nothing", *words]
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, **environment}, check=False
        )
        return done.stderr

    assert miniclip().startswith("error: no bundle at nothing")
    assert "Traceback" in miniclip("--debug") and "Traceback" in miniclip(MINICLIP_DEBUG="1")


def test_models_lists_the_one_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["name"] == "miniclip-s" and model["default"] and Path(model["folder"]) == released_bundle()
    assert find_bundle("miniclip-s") == find_bundle(None) == released_bundle()


def test_a_preview_is_lines_of_half_blocks(photos: Path) -> None:
    lines = terminal.preview(sorted(photos.glob("red-circle*"))[0], columns=12).splitlines()
    assert all(line.count("\u2580") == 12 for line in lines) and 4 <= len(lines) <= 6
    assert "38;2;255;255;255" in lines[0]


def test_colour_needs_a_terminal_that_supports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.dim("x") == "x"
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    assert terminal.dim("x") == "\x1b[2mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.dim("x") == "x"


def test_a_log_gets_whole_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniclip.data.progress.LINE_EVERY_S", 0.0)
    with ProgressBar(total=3, desc="embedding images") as progress:
        for _ in range(3):
            progress.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["embedding images: 1 of 3", "embedding images: 2 of 3"]
    assert all("left" in line for line in lines)


def test_names_can_be_left_out(photos: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(sorted(photos.glob("blue-square*"))[0], photos / "poop.png")
    named, _ = search(capsys, "poop", "--bundle", tiny_bundle)
    assert named[0] == "poop.png"
    run(["search", "poop", "--bundle", str(tiny_bundle), "--provider", "cpu", "--json"])
    assert json.loads(capsys.readouterr().out)["results"][0]["by_name"] is True
    run(["search", "poop", "--bundle", str(tiny_bundle), "--provider", "cpu", "--json", "--no-names"])
    assert not any("by_name" in result for result in json.loads(capsys.readouterr().out)["results"])

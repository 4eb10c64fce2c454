"""Skipped rows, encodings and wrong paths: each one is named with its reason."""

import os
from pathlib import Path

import numpy as np
import pytest

from miniclip.data.caption_table import CaptionTable, Skipped, check_skipped
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from tests.support.caption_files import add_images, captions_by_name, reasons


def test_a_limited_number_of_skipped_rows_is_named() -> None:
    skipped = [Skipped(f"{number}.jpg", "no such file") for number in range(25)]
    table = CaptionTable([], [], [], np.empty(0, dtype=np.int64), skipped)
    lines = table.skipped_lines(most=20)
    assert lines[0] == "skipping 0.jpg: no such file"
    assert lines[-1] == "... and 5 more"
    assert len(lines) == 21


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_blank_lines_and_byte_order_mark_change_nothing(tmp_path: Path, line_end: str, mark: bytes) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    lines = ["", "image,caption", "", "a.jpg,Ein Bär", "  ", "b.jpg,two", ""]
    (tmp_path / "captions.txt").write_bytes(mark + line_end.join(lines).encode())
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["Ein Bär"], "b.jpg": ["two"]}


def test_latin_1_and_utf_8_in_one_file_are_read(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    content = b"\xef\xbb\xbfimage,caption\na.jpg,caf\xe9 cr\xe8me\nb.jpg," + "naïve".encode() + b"\n"
    (tmp_path / "captions.txt").write_bytes(content)
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["café crème"], "b.jpg": ["naïve"]}


def test_a_unicode_line_separator_does_not_break_a_caption(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "x.token").write_text("a.jpg#0\tone\u2028two\n", encoding="utf-8")
    assert read_captions(tmp_path).captions == ["one two"]


def test_every_skipped_row_is_named_with_its_reason(tmp_path: Path) -> None:
    add_images(tmp_path / "Images", "a.jpg", "empty.jpg", "unnamed.jpg")
    (tmp_path / "captions.txt").write_text(
        "image,caption\na.jpg,one\na.jpg,\n,no name\ngone.jpg,lost\ngone.jpg,lost too\nempty.jpg,  \n"
    )
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ["one"]}
    assert reasons(table) == {
        "captions.txt line 4": "no image name",
        "a.jpg": "empty caption",
        "gone.jpg": "no such file",
        "empty.jpg": "empty caption",
        "unnamed.jpg": "image without any caption",
    }
    assert {entry.name: entry.rows for entry in table.skipped}["gone.jpg"] == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/outside.jpg", "absolute path"),
        ("C:\\outside.jpg", "absolute path"),
        ("\\\\server\\outside.jpg", "absolute path"),
        ("../outside.jpg", "leaves the dataset"),
        ("sub/../../outside.jpg", "leaves the dataset"),
        ("..\\outside.jpg", "leaves the dataset"),
        ("x" * 5000 + ".jpg", "no such file"),
        ("sub", "no such file"),
    ],
)
def test_names_that_leave_the_folder_are_skipped(tmp_path: Path, name: str, reason: str) -> None:
    add_images(tmp_path, "outside.jpg", "data/a.jpg", "data/sub/b.jpg", "data/Images/c.jpg")
    (tmp_path / "data/captions.txt").write_text(f"image,caption\na.jpg,one\n{name},other\n")
    table = read_captions(tmp_path / "data")
    assert table.captions == ["one"]
    assert [entry.reason.startswith(reason) for entry in table.skipped if entry.rows] == [True]


def test_every_spelling_of_a_path_inside_the_folder_is_found(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "Images/b.jpg", "sub/c.jpg")
    (tmp_path / "captions.txt").write_text(
        "image,caption\n./a.jpg,1\nsub/../a.jpg,2\n Images/b.jpg,3\nb.jpg,5\nsub\\c.jpg,4\n"
    )
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ["1", "2"], "b.jpg": ["3", "5"], "c.jpg": ["4"]}
    assert len(table.image_paths) == 3


def test_identical_captions_of_one_image_are_kept_once(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,dog\na.jpg,cat\na.jpg, dog\nb.jpg,dog\n")
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ["dog", "cat"], "b.jpg": ["dog"]}
    assert table.skipped == []


@pytest.mark.parametrize(("missing", "accepted"), [(1, True), (2, False)])
def test_more_than_five_percent_skipped_needs_a_flag(tmp_path: Path, missing: int, accepted: bool) -> None:
    kept = [f"{n:02d}.jpg" for n in range(20 - missing)]
    add_images(tmp_path, *kept)
    names = [*kept, *(f"gone{n}.jpg" for n in range(missing))]
    (tmp_path / "captions.txt").write_text("image,caption\n" + "".join(f"{n},x\n{n},y\n" for n in names))
    table = read_captions(tmp_path)
    check_skipped(table, allow_missing=True)
    if accepted:
        check_skipped(table, allow_missing=False)
    else:
        with pytest.raises(MiniClipError, match=r"4 of 40 rows.*gone0\.jpg \(no such file\).*--allow-missing"):
            check_skipped(table, allow_missing=False)


def test_uncaptioned_images_do_not_count_as_skipped_rows(tmp_path: Path) -> None:
    add_images(tmp_path, *(f"{n}.jpg" for n in range(10)))
    (tmp_path / "captions.txt").write_text("image,caption\n0.jpg,zero\n")
    table = read_captions(tmp_path)
    assert len(table.skipped) == 9
    check_skipped(table, allow_missing=False)


def test_summary_counts_splits_and_reasons(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,one,train\nb.jpg,two,\ngone.jpg,lost,\nno.jpg,lost,\n")
    assert read_captions(tmp_path).summary() == (
        "2 images, 2 captions: train 1, in no split 1\nskipped: 2 no such file"
    )


def test_a_missing_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match="does not exist; give a folder"):
        read_captions(tmp_path / "nowhere")


def test_an_empty_folder_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match=r"no caption file and no images.*captions\.txt.*openmoji"):
        read_captions(tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "captions.txt", "x.csv", "x.json"])
def test_a_file_of_unknown_format_lists_the_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Dear diary\n")
    with pytest.raises(MiniClipError, match=r"not a caption file that MiniCLIP knows.*Karpathy JSON"):
        read_captions(tmp_path / name)


def test_an_empty_caption_file_is_an_error(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").touch()
    with pytest.raises(MiniClipError, match=r"captions\.txt is empty"):
        read_captions(tmp_path)


def test_several_caption_files_need_a_choice(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("image,caption\na.jpg,one\n")
    with pytest.raises(MiniClipError, match=r"several caption files \(one\.csv, two\.csv\); name the one"):
        read_captions(tmp_path)
    assert read_captions(tmp_path / "two.csv").captions == ["one"]


def test_a_dataset_without_images_says_where_they_belong(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,one\n")
    with pytest.raises(MiniClipError, match=r"a\.jpg \(no such file\).*beside the caption file or in Images"):
        read_captions(tmp_path)


def test_links_to_lost_files_and_pipes_are_no_captions(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "a.txt").write_text("a cat")
    (tmp_path / "b.txt").symlink_to("lost.txt")
    os.mkfifo(tmp_path / "c.txt")  # reading it would wait for ever
    (tmp_path / "d.jpg").symlink_to("lost.jpg")
    (tmp_path / "d.txt").write_text("a dog")
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["a cat"]}

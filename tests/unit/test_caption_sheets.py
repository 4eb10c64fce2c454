"""Caption files from spreadsheets and databases: merged cells, other separators, UTF-16."""

from pathlib import Path

import pytest

from miniclip.data.caption_table import Skipped, check_skipped
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from tests.support.caption_files import add_images, captions_by_name


def test_unnamed_rows_count_in_every_selected_split(tmp_path: Path) -> None:
    """A spreadsheet with merged cells names an image only in its first row."""
    names = [f"{number}.jpg" for number in range(30)]
    add_images(tmp_path, *names)
    rows = "".join(f"{name},one\n,two\n,three\n" for name in names)
    (tmp_path / "captions.csv").write_text("image,caption\n" + rows)
    for splits in (("train", "val"), ("test",), ("all",)):
        table = read_captions(tmp_path).split(*splits)
        assert len(table.skipped) == 60 and table.skipped_lines()[0] == "skipping captions.csv line 3: no image name"
        with pytest.raises(MiniClipError, match=r"60 of \d+ rows were skipped, .*line 3 \(no image name\)"):
            check_skipped(table, allow_missing=False)


def test_an_unnamed_row_counts_in_its_split(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "x.csv").write_text("image,caption,split\na.jpg,one,train\n,two,Dev\nb.jpg,three,test\n,four,\n")
    table = read_captions(tmp_path)
    assert table.split("train").skipped == [Skipped("x.csv line 5", "no image name", 1, None)]
    assert [entry.name for entry in read_captions(tmp_path).split("test").skipped] == ["x.csv line 5"]
    assert [(entry.name, entry.split) for entry in table.skipped] == [("x.csv line 3", "val"), ("x.csv line 5", None)]


@pytest.mark.parametrize("sign", ["|", " | ", ";", "\t", ","])
def test_the_header_determines_the_separator(tmp_path: Path, sign: str) -> None:
    add_images(tmp_path, "a.jpg", "b.jpg")
    lines = (("image", "caption", "split"), ("a.jpg", "2 dogs run", "train"), ("b.jpg", "a cat", "test"))
    (tmp_path / "pairs.csv").write_text("\n".join(sign.join(line) for line in lines))
    table = read_captions(tmp_path)
    assert captions_by_name(table) == {"a.jpg": ["2 dogs run"], "b.jpg": ["a cat"]}
    assert table.splits == ["train", "test"]


@pytest.mark.parametrize(("sign", "name"), [("|", "image"), ("|", "image_name"), (";", "filename")])
def test_captions_with_numbers_or_separators_stay_whole(tmp_path: Path, sign: str, name: str) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "pairs.csv").write_text(
        f'{name}{sign}caption\na.jpg{sign}2 dogs, running\na.jpg{sign}3 {sign} 4\na.jpg{sign}"5{sign} 6"\n'
    )
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["2 dogs, running", f"3 {sign} 4", f"5{sign} 6"]}


def test_captions_of_a_comma_file_may_hold_every_other_separator(tmp_path: Path) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "pairs.csv").write_text("image,caption\na.jpg,one; two | three\tfour\n")
    assert read_captions(tmp_path).captions == ["one; two | three four"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("sign", [",", "\t"])
def test_utf_16_of_spreadsheets_is_read(tmp_path: Path, encoding: str, sign: str) -> None:
    add_images(tmp_path, "a.jpg")
    (tmp_path / "captions.csv").write_bytes(f"\ufeffimage{sign}caption\r\na.jpg{sign}Ein Bär\r\n".encode(encoding))
    assert captions_by_name(read_captions(tmp_path)) == {"a.jpg": ["Ein Bär"]}

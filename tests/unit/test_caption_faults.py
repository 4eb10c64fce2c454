"""Real caption files: names in other forms, stray quotes, missing columns, text beside images."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError


def dataset(folder: Path, images: list[str], captions: str, name: str = "captions.csv") -> Path:
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / image, "JPEG")
    (folder / name).write_text(captions, encoding="utf-8")
    return folder / name


def captions_of(path: Path) -> dict[str, list[str]]:
    table = read_captions(path)
    return {image.name: table.captions_of(row) for row, image in enumerate(table.image_paths)}


# names


@pytest.mark.parametrize(("on_disk", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("name", ["café.jpg", "Übung/müde.jpg", "한국어.jpg", "ấ.jpg"])
def test_names_in_the_other_unicode_form_are_found(tmp_path: Path, on_disk: str, written: str, name: str) -> None:
    file, caption = unicodedata.normalize(on_disk, name), unicodedata.normalize(written, name)
    table = read_captions(dataset(tmp_path, [file], f"image,caption\n{caption},a cup\n"))
    assert table.captions == ["a cup"] and not table.skipped
    assert table.notes == ["1 image names are written in another Unicode form than their files"]
    assert table.notes[0] in table.summary() and table.split("all").notes == table.notes


def test_names_in_another_case_and_without_suffix_are_found(tmp_path: Path) -> None:
    captions = "image,caption\nimg_1.JPG,one\nIMG_2,two\nimg_3.png,three\nc.jpg,four\n"
    table = read_captions(dataset(tmp_path, ["IMG_1.jpg", "img_2.jpg", "IMG_3.jpg", "c.jpg"], captions))
    assert table.captions == ["one", "two", "three", "four"]
    assert table.notes == [
        "1 image names are written in another case than their files",
        "2 image names are written with another suffix or none than their files",
    ]


def test_ambiguous_names_are_named_and_left_out(tmp_path: Path) -> None:
    captions = "image,caption\nA.JPG,one\nb,two\nc.jpg,three\n"
    table = read_captions(dataset(tmp_path, ["a.jpg", "a.JPG", "b.jpg", "b.png", "c.jpg"], captions))
    assert table.captions == ["three"]
    assert "A.JPG (a.JPG, a.jpg)" in table.notes[-1] and "b (b.jpg, b.png)" in table.notes[-1]
    assert {entry.name for entry in table.skipped if entry.rows} == {"A.JPG", "b"}


def test_an_exact_name_wins(tmp_path: Path) -> None:
    table = read_captions(dataset(tmp_path, ["a.jpg", "A.jpg"], "image,caption\na.jpg,small\nA.jpg,large\n"))
    assert [path.name for path in table.image_paths] == ["a.jpg", "A.jpg"] and table.notes == []


def test_official_lists_match_names_in_the_other_form(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café.jpg")
    dataset(tmp_path, [name, "b.jpg"], f"{name}#0\ta cup\nb.jpg#0\ta dog\n", "Flickr8k.token.txt")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("b.jpg\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("café.jpg\n", encoding="utf-8")
    table = read_captions(tmp_path)
    assert dict(zip(table.captions, table.splits, strict=True)) == {"a cup": "test", "a dog": "train"}


# quotes


@pytest.mark.parametrize("sign", [",", "\t", ";", "|"], ids=["comma", "tab", "semicolon", "bar"])
def test_a_stray_quote_loses_no_row(tmp_path: Path, sign: str) -> None:
    rows = [
        ("image", "caption"),
        ("a.jpg", '"A dog runs'),
        ("b.jpg", "a cat"),
        ("c.jpg", 'a man says "hello"'),
        ("d.jpg", "a boat"),
        ("e.jpg", 'a 5" pipe'),
    ]
    images = [name for name, _ in rows[1:]]
    file = dataset(tmp_path, images, "".join(sign.join(row) + "\n" for row in rows))
    table = read_captions(file)
    assert table.captions == ["A dog runs", "a cat", 'a man says "hello"', "a boat", 'a 5" pipe']
    assert table.notes == ["captions.csv line 2: a quote is not closed there, so it was read as part of the caption"]


def test_a_stray_quote_closed_in_another_row_loses_no_row(tmp_path: Path) -> None:
    captions = 'image,caption,split\na.jpg,"A dog, running,train\nb.jpg,a cat,val\nc.jpg,a 5"\nd.jpg,a boat,test\n'
    table = read_captions(
        dataset(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], captions.replace('5"\n', '5",test\n'))
    )
    assert table.captions == ["A dog, running", "a cat", 'a 5"', "a boat"]
    assert table.splits == ["train", "val", "test", "test"]


def test_valid_captions_of_several_lines_stay_whole(tmp_path: Path) -> None:
    captions = 'image,caption\na.jpg,"one,\ntwo ""quoted"",\n\nthree"\nb.jpg,"x"\nc.jpg,"A stray one\nd.jpg,last\n'
    assert captions_of(dataset(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], captions)) == {
        "a.jpg": ['one, two "quoted", three'],
        "b.jpg": ["x"],
        "c.jpg": ["A stray one"],
        "d.jpg": ["last"],
    }


def test_caption_before_the_name(tmp_path: Path) -> None:
    captions = 'caption,image\n"one,\ntwo",a.jpg\n"A stray one,b.jpg\nthe next,c.jpg\na 5",d.jpg\n'
    assert captions_of(dataset(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], captions)) == {
        "a.jpg": ["one, two"],
        "b.jpg": ["A stray one"],
        "c.jpg": ["the next"],
        "d.jpg": ['a 5"'],
    }


def test_stray_quote_among_names_without_suffix(tmp_path: Path) -> None:
    captions = 'image,caption\na,"A stray one\nb,two words\nc,closed "\n'
    found = captions_of(dataset(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], captions))
    assert found["a.jpg"] == ["A stray one"] and found["b.jpg"] == ["two words"]


# formats


def test_open_clips_tsv_is_read(tmp_path: Path) -> None:
    assert captions_of(dataset(tmp_path, ["a.jpg"], "filepath\ttitle\na.jpg\ta dog\n", "train.tsv")) == {
        "a.jpg": ["a dog"]
    }


def test_img2dataset_folders_are_read(tmp_path: Path) -> None:
    for shard in ("00000", "00001"):
        dataset(tmp_path / shard, ["000000000.jpg", "000000001.jpg"], "a dog", "000000000.txt")
        (tmp_path / shard / "000000001.txt").write_text("a cat\na small cat\n")
        (tmp_path / shard / "000000000.json").write_text('{"caption": "a dog", "url": "x"}')
        (tmp_path / f"{shard}_stats.json").write_text('{"count": 2}')
    table = read_captions(tmp_path)
    assert len(table.image_paths) == 4 and table.captions == ["a dog", "a cat", "a small cat"] * 2
    assert not table.skipped


def test_a_text_file_without_an_image_is_not_a_caption(tmp_path: Path) -> None:
    dataset(tmp_path, ["a.jpg"], "notes", "readme.txt")
    assert read_captions(tmp_path).captions == []


@pytest.mark.parametrize(
    ("name", "content", "looked_for", "found"),
    [
        ("captions.csv", "image,description\na.jpg,x\n", "captions (caption, text, title)", "image, description"),
        ("captions.csv", "photo,caption\na.jpg,x\n", "image names (image, file_name", "photo, caption"),
        ("captions.tsv", "photo\twords\na.jpg\tx\n", "image names (image,", "photo, words"),
        ("metadata.csv", "id;words\n1;x\n", "captions (caption,", "id, words"),
        ("captions.txt", "image|words\na.jpg|x\n", "captions (caption,", "image, words"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "words": "x"}\n', "caption or text or title", "file_name, words"),
        ("metadata.jsonl", '{"photo": "a.jpg", "text": "x"}\n', "file_name", "photo, text"),
    ],
)
def test_a_missing_column_is_named_with_the_existing_ones(
    tmp_path: Path, name: str, content: str, looked_for: str, found: str
) -> None:
    file = dataset(tmp_path, ["a.jpg"], content, name)
    for source in (file, tmp_path):
        with pytest.raises(MiniClipError) as refused:
            read_captions(source)
        assert looked_for in str(refused.value) and found in str(refused.value)

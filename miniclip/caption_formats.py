"""One small reader for each caption format: a file goes in, `Row`s come out, one a caption, as they stand.

Nothing is checked against the pictures here, and nothing is left out: that is `miniclip.captions`, the same for all.
Text may carry a byte order mark, Windows line ends, blank lines, or be Latin-1 or UTF-16.
"""

import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from miniclip.cache import cache_folder, write_cached
from miniclip.errors import MiniClipError
from miniclip.images import open_image

NAME_COLUMNS = ("image", "file_name", "filename", "filepath", "image_name")
CAPTION_COLUMNS = ("caption", "text")
CAPTION_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".token")
SPLIT_WORDS = {"train": "train", "training": "train", "restval": "train", "val": "val", "valid": "val", "dev": "val"}
SPLIT_WORDS |= {"validation": "val", "test": "test", "testing": "test"}
USUAL_NAMES = re.compile(r"metadata\.(csv|jsonl)|captions\.txt|results\.csv|dataset_.*\.json|.*\.token(\.txt)?")
FORMATS = (
    "captions.txt or CSV/TSV with a header image,caption[,split]; results.csv; *.token; Karpathy JSON; "
    "metadata.csv|jsonl; a folder of pictures; hf:USER/NAME; openmoji"
)
LISTS = {"train": "*trainImages.txt", "val": "*devImages.txt", "test": "*testImages.txt"}


class Row(NamedTuple):
    """One caption as its file gives it. `split` is "" where the row names none."""

    name: str  # the picture's name as written; "" if the row has none
    caption: str | None  # None: the picture is named, but no caption with it
    split: str = ""
    where: str = ""  # for messages: "captions.txt line 12"
    path: Path | None = None  # the picture's file, once known
    problem: str = ""  # why there is no such file


NO_CAPTION: tuple[str | None] = (None,)  # so that a picture without captions still gives a row
Reader = Callable[[Path], list[Row]]


def reader_of(file: Path) -> Reader | None:
    """The reader for a caption file, told by its suffix and its first line; None when it is no caption file."""
    suffix = file.suffix.lower()
    if suffix not in CAPTION_SUFFIXES:
        return None
    with file.open("rb") as stream:
        head = _decode(stream.read(65536))
    first = next((line for line in head.split("\n") if line.strip()), "")
    if suffix == ".json":
        known = file.name.startswith("dataset_") or ('"images"' in head and '"sentences"' in head)
        return read_karpathy if known else None
    if suffix == ".jsonl":
        return read_json_lines if '"file_name"' in first else None
    if re.match(r"\S.*#\d+\t", first):
        return read_tokens
    columns = _columns(first, "|")
    if columns[1:] == ["comment_number", "comment"] and columns[0] in NAME_COLUMNS:
        return read_pipes
    return read_columns if _names_both(_columns(first, _delimiter(first))) else None


def reader_for(file: Path) -> Reader:
    """`reader_of`, but `MiniClipError` where there is none."""
    reader = reader_of(file)
    if reader is None:
        raise _unknown(file)
    return reader


def caption_file_in(folder: Path) -> Path | None:
    """The one caption file of a folder; `MiniClipError` when there are several, or one that cannot be understood."""
    usual: list[Path] = []
    others: list[Path] = []
    for file in sorted(folder.iterdir()):
        name = file.name.lower()
        is_usual = USUAL_NAMES.fullmatch(name) is not None
        # other .txt files are lists and notes; the lemma file holds captions cut down to word stems
        if name.startswith(".") or "lemma" in name or (name.endswith(".txt") and not is_usual):
            continue
        if file.suffix.lower() in CAPTION_SUFFIXES and file.is_file():
            if reader_of(file):
                (usual if is_usual else others).append(file)
            elif is_usual:
                raise _unknown(file)
    files = usual or others
    if len(files) > 1:
        raise MiniClipError(
            f"{folder} holds several caption files ({', '.join(file.name for file in files[:5])}); name the one to use"
        )
    return files[0] if files else None


def caption_files_of_splits(folder: Path) -> list[Path]:
    """The caption files of an imagefolder's split folders: train/metadata.csv, validation/metadata.csv, ..."""
    subfolders = [sub for sub in sorted(folder.iterdir()) if sub.name.lower() in SPLIT_WORDS and sub.is_dir()]
    return [file for sub in subfolders if (file := caption_file_in(sub))]


def read_columns(file: Path) -> list[Row]:
    """Kaggle's `captions.txt`, `metadata.csv`, and any CSV or TSV with a header `image,caption[,split]`.

    A semicolon or a bar separates, too, where it does so in the header.
    A caption may hold commas without being quoted: what a row has too much belongs to its caption.
    """
    text = _text(file)
    header = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = _delimiter(header)
    columns = _columns(header, delimiter)
    name, caption = _index(columns, NAME_COLUMNS), _index(columns, CAPTION_COLUMNS)
    split = _index(columns, ("split",))
    if name is None or caption is None:
        raise _unknown(file)
    # the header is read as `reader_of` read it: a stray quote in it must not make another header of it
    records = _records(text.replace(header, "", 1), delimiter)
    rows = []
    for number, fields in records:
        extra = max(0, len(fields) - len(columns))
        joined = delimiter.join(fields[caption : caption + 1 + extra])
        fields = [*fields[:caption], joined, *fields[caption + 1 + extra :]]
        fields += [""] * (len(columns) - len(fields))
        rows.append(Row(fields[name], fields[caption], fields[split] if split is not None else "", _at(file, number)))
    return rows


def read_pipes(file: Path) -> list[Row]:
    """Kaggle's Flickr30k `results.csv`: `image_name| comment_number| comment`, never quoted.

    Its one broken row, `2199200615.jpg| 4   A dog runs across the grass .`, lacks the second bar: a number and a
    caption in one field.
    """
    rows = []
    for number, line in _lines(file)[1:]:
        name, *rest = line.split("|", maxsplit=2)
        caption = rest[1] if len(rest) == 2 else re.sub(r"^\s*\d+(\s+|$)", "", "".join(rest))
        rows.append(Row(name, caption, where=_at(file, number)))
    return rows


def read_tokens(file: Path) -> list[Row]:
    """Flickr's `*.token` and `*.token.txt`: `img.jpg#0<TAB>caption`."""
    rows = []
    for number, line in _lines(file):
        label, _, caption = line.partition("\t")
        rows.append(Row(re.sub(r"#\d+\s*$", "", label), caption, where=_at(file, number)))
    return rows


def read_karpathy(file: Path) -> list[Row]:
    """Karpathy's JSON: `images`, each with `filename`, `split`, `sentences[].raw` and perhaps `filepath`."""
    rows = []
    try:
        for number, image in enumerate(json.loads(_text(file))["images"]):
            name = str(PurePosixPath(image.get("filepath") or "", image["filename"]))
            captions = [str(sentence["raw"]) for sentence in image["sentences"]]
            where = f"{file.name} image {number}"
            rows += [Row(name, caption, str(image["split"]), where) for caption in captions or NO_CAPTION]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MiniClipError(
            f"{file} is not in Karpathy's form, images with filename, split and sentences[].raw ({error!r})"
        ) from None
    return rows


def read_json_lines(file: Path) -> list[Row]:
    """Imagefolder's `metadata.jsonl`: an object a line with `file_name`, `text` or `caption`, and perhaps `split`."""
    rows = []
    for number, line in _lines(file):
        try:
            entry = json.loads(line)
            caption = next((entry[column] for column in CAPTION_COLUMNS if column in entry), None)
            split = str(entry.get("split") or "")
            name = str(entry.get("file_name") or "")
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise MiniClipError(f"{file} line {number} is not a JSON object; mend or remove it") from None
        rows += [Row(name, text, split, _at(file, number)) for text in _texts(caption) or NO_CAPTION]
    return rows


def read_hugging_face(name: str) -> list[Row]:
    """A Hugging Face dataset by its id: its `Image` column and the columns caption, captions, text, caption_0, ...

    Pictures that are not files already are written as PNG into the cache, under the hash of their bytes: a dataset
    with one row a caption repeats its pictures, and they must come out as one. A single part is no split: it is
    called train for want of another name.
    """
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]  # an extra, and slow to import
    except ImportError:
        raise MiniClipError(f'hf:{name} needs the package datasets: pip install "miniclip[datasets]"') from None
    try:
        parts = datasets.load_dataset(name)
    except Exception as error:  # the hub, the network and the dataset's files each fail in their own way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MiniClipError(f"cannot load hf:{name} ({reason}); check the name and the network") from None
    rows = []
    for part_name, part in parts.items():
        picture = next((c for c, feature in part.features.items() if isinstance(feature, datasets.Image)), None)
        texts = [c for c in part.features if re.fullmatch(r"(caption|text|sentence)s?(_?\d+)?", c, re.IGNORECASE)]
        if picture is None or not texts:
            raise MiniClipError(f"hf:{name} has no picture or no caption column, only {', '.join(part.features)}")
        for number, entry in enumerate(part.cast_column(picture, datasets.Image(decode=False))):
            where = f"{part_name} row {number}"
            path, problem = _picture_file(entry[picture] or {})
            split = str(entry.get("split") or (part_name if len(parts) > 1 else ""))
            row = Row(path.name if path else where, None, split, where, path, problem)
            captions = [caption for column in texts for caption in _texts(entry[column])]
            rows += [row._replace(caption=caption) for caption in captions or NO_CAPTION]
    return rows


def _picture_file(picture: Mapping[str, Any]) -> tuple[Path | None, str]:
    """An undecoded picture of a Hugging Face dataset -> its file, or the reason why there is none."""
    content, path = picture.get("bytes"), picture.get("path")
    if not content:
        return (Path(path), "") if path and Path(path).is_file() else (None, "no such file")
    file = cache_folder() / "datasets" / f"{hashlib.sha256(content).hexdigest()}.png"
    if not file.exists():
        png = io.BytesIO()
        try:
            open_image(content).save(png, "PNG")
        except MiniClipError as error:
            return None, str(error)
        write_cached(file, png.getvalue())
    return file, ""


def read_lists(folder: Path) -> dict[str, str]:
    """The official lists `Flickr_8k.trainImages.txt`, `devImages`, `testImages` in a folder -> {file name: split}."""
    split_of: dict[str, str] = {}
    for split, pattern in LISTS.items():
        for file in folder.glob(pattern):
            for _, line in _lines(file):
                name = PurePosixPath(line.strip()).name
                if split_of.setdefault(name, split) != split:
                    raise MiniClipError(f"{file}: {name} is in the list of {split_of[name]} too; leave it in one list")
    return split_of


def _byte_as_latin_1(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("miniclip-latin-1", _byte_as_latin_1)  # one stray byte must not spoil the file's other letters


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # a spreadsheet's "Unicode text"
        text = content.decode("utf-16", errors="replace")
    else:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="miniclip-latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _text(file: Path) -> str:
    return _decode(file.read_bytes())


def _numbered(text: str) -> list[tuple[int, str]]:
    """Numbered lines that are not blank. Not `str.splitlines`, which also breaks at rarer signs inside captions."""
    return [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _lines(file: Path) -> list[tuple[int, str]]:
    return _numbered(_text(file))


def _records(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """CSV or TSV -> (line number, fields) of each record that is not blank."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        records = [(reader.line_num, fields) for fields in reader]
    except csv.Error:  # a stray quote, which would swallow the lines after it: then a record is a line
        records = [(n, next(csv.reader([line], delimiter=delimiter))) for n, line in _numbered(text)]
    return [(n, fields) for n, fields in records if any(field.strip() for field in fields)]


def _delimiter(header: str) -> str:
    """The one that gives the header a column of names and one of captions."""
    return next((sign for sign in "\t|;" if _names_both(_columns(header, sign))), ",")


def _columns(header: str, delimiter: str) -> list[str]:
    fields = next(csv.reader([header], delimiter=delimiter), [])
    return [column.strip().strip('"').lower() for column in fields]


def _names_both(columns: list[str]) -> bool:
    return _index(columns, NAME_COLUMNS) is not None and _index(columns, CAPTION_COLUMNS) is not None


def _index(columns: Iterable[str], names: Iterable[str]) -> int | None:
    """Where the first of `names` that there is stands among `columns`."""
    columns = list(columns)
    return next((columns.index(name) for name in names if name in columns), None)


def _texts(value: Any) -> list[str]:
    """A caption cell: one string, a list of them, or nothing."""
    return [str(text) for text in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _at(file: Path, number: int) -> str:
    return f"{file.name} line {number}"


def _unknown(file: Path) -> MiniClipError:
    what = "is not a caption file that MiniCLIP knows" if file.stat().st_size else "is empty"
    return MiniClipError(f"{file} {what}; it reads {FORMATS}")

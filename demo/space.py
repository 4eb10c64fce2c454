"""Write a Hugging Face Space: app.py, requirements.txt, README.md, code, bundle, index and images.

    python -m demo.space --images FOLDER --bundle models/miniclip-s --out FOLDER

The Space is complete: it has the images as WebP previews without metadata, and no path of this machine. It starts with
`python app.py`, or on the hub.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from importlib.metadata import requires, version
from pathlib import Path

import lancedb
import pyarrow as pa
import pyarrow.compute as pc

import miniclip
from miniclip.cli.command import ArgumentParser, run_command
from miniclip.errors import MiniClipError
from miniclip.files import write_json
from miniclip.index.image_index import ImageIndex
from miniclip.index.location import bring_up_to_date
from miniclip.index.schema import IMAGES
from miniclip.index.settings import INDEX_FORMAT
from miniclip.index.store import open_table
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import find_bundle
from miniclip.inference.onnx_encoders import OnnxEncoders

from .gallery_paths import GalleryPaths
from .previews import Previews

README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
---

# {title}

Search {count:,} images with words. Made with MiniCLIP; the model is {bundle}.
"""
APP = '''"""The search page of this Space: python app.py"""

import os
from pathlib import Path

os.chdir(Path(__file__).parent)  # the index names its images relative to this folder

from demo.app import build_page, launch_options
from demo.app_state import AppState
from miniclip.search.searcher import Searcher

app_state = AppState(Searcher.open("index", "bundle"), is_public=True)
page = build_page(app_state)
page.launch(server_name=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), **launch_options(app_state))
'''


def write_space(images: str, bundle: Path, out: Path) -> int:
    """Write the Space and return the number of its images; `MiniClipError` if `out` is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MiniClipError(f"{out} is not an empty folder; choose another --out (make space OUT=FOLDER)")
    encoders = OnnxEncoders(Bundle.open(bundle), "cpu")
    print(encoders.running_on)
    index = ImageIndex.open(bring_up_to_date(images, encoders, partial(print, flush=True)))
    out.mkdir(parents=True, exist_ok=True)
    path_of = _write_previews(index, out)
    encoders.bundle.copy_to(out / "bundle")
    # the copy has no name on the hub, so its fingerprint differs
    _write_index(index, path_of, out / "index", Bundle.open(out / "bundle").fingerprint)
    ignored = shutil.ignore_patterns("__pycache__", "released")  # an installed miniclip holds its models there
    shutil.copytree(Path(miniclip.__file__).parent, out / "miniclip", ignore=ignored)
    shutil.copytree(Path(__file__).parent, out / "demo", ignore=ignored)
    (out / "app.py").write_text(APP, encoding="utf-8")
    (out / "requirements.txt").write_text("\n".join(_requirements()) + "\n", encoding="utf-8")
    title = out.resolve().name.replace("-", " ").replace("_", " ").capitalize()
    facts = {"title": title, "gradio": version("gradio"), "count": len(path_of), "bundle": encoders.bundle.name}
    (out / "README.md").write_text(README.format(**facts), encoding="utf-8")
    return len(path_of)


def _write_previews(index: ImageIndex, out: Path) -> dict[str, str]:
    """Write each image as images/NAME.webp. Returns the new path by the stored one; unreadable images are left out."""
    paths, previews = GalleryPaths(index), Previews(index)
    path_of: dict[str, str] = {}
    for row in range(len(index)):
        path = Path("images") / f"{paths.name_of(row)}.webp"
        try:
            webp = previews.webp(row, "large")
        except MiniClipError as error:
            print(f"left out {path.stem}: {error}", flush=True)
            continue
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(webp)
        path_of[index.paths.text(row)] = str(path)
    if not path_of:
        raise MiniClipError("none of the images can be read")
    return path_of


def _write_index(index: ImageIndex, path_of: dict[str, str], folder: Path, fingerprint: str) -> None:
    """Write the same rows with relative paths.

    The table is a new one, because older versions of a table keep the paths of this machine.
    """
    table: pa.Table = open_table(index.folder, IMAGES).to_arrow()  # type: ignore[union-attr]
    paths = pa.array([path_of.get(path) for path in table["path"].to_pylist()], pa.string())
    is_kept = pc.is_valid(paths)
    column = table.schema.get_field_index("path")
    table = table.filter(is_kept).set_column(column, table.schema.field(column), paths.filter(is_kept))
    folder.mkdir()
    lancedb.connect(str(folder)).create_table(IMAGES, table)
    settings = {"fingerprint": fingerprint, "bundle": "bundle", "images": "images"}
    write_json(folder / "index.json", {"format": INDEX_FORMAT, **settings})


def _requirements() -> list[str]:
    """The packages that the page needs, from the metadata of this installation."""
    lines = [line.partition(";") for line in requires("miniclip") or []]
    return sorted({name.strip() for name, _, extra in lines if not extra or '"demo"' in extra or '"cpu"' in extra})


def main(argv: Sequence[str] | None = None) -> int:
    flags = ArgumentParser(prog="python -m demo.space", description="Write a Hugging Face Space.")
    flags.add_argument("--images", required=True, help="folder of images, caption file, hf:USER/NAME, or openmoji")
    flags.add_argument("--bundle", type=Path, required=True, help="bundle: a folder, or USER/NAME on the hub")
    flags.add_argument("--out", type=Path, required=True, help="new folder for the Space")
    arguments = flags.parse_args(argv)
    count = write_space(arguments.images, find_bundle(arguments.bundle), arguments.out)
    print(f"{arguments.out}: a Space with {count:,} images; try it with: python {arguments.out / 'app.py'}")
    return 0


if __name__ == "__main__":
    run_command(main)

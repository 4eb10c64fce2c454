"""Draw a data set from Debian's package openclipart-svg, on which no model of the project was trained.

apt-get download openclipart-svg && dpkg -x openclipart-svg_*.deb tree
python -m benchmarks.openclipart --images tree/usr/share/openclipart/svg --out out
miniclip evaluate --bundle bundles/NAME --data out --split all

A drawing's caption is the title that its author wrote into it. One drawing per title is kept ("jigsaw red 07" and
"jigsaw red 08" count as one), because no search could distinguish the others. The drawings are in the public domain.
"""

import csv
import re
from pathlib import Path
from xml.etree import ElementTree

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.errors import MiniClipError
from miniclip.installation import install

SIZE_PX = 384
TITLE = ".//{http://purl.org/dc/elements/1.1/}title"
MAX_BYTES = 300_000  # a few larger drawings take minutes


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.openclipart", description="Named drawings as an imagefolder.")
    parser.add_argument("--images", required=True, type=Path, help="folder of SVG files from Debian's openclipart-svg")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    arguments = parser.parse_args()
    try:
        import resvg_py
    except ImportError as error:
        raise MiniClipError(f"drawing needs resvg-py: {install('demo')}") from error
    named = named_drawings(arguments.images)
    if not named:
        raise MiniClipError(f"{arguments.images} has no drawings with titles; unpack openclipart-svg there")
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (title, path) in enumerate(sorted(named.items())):
        try:
            png = resvg_py.svg_to_bytes(svg_path=str(path), background="white", width=SIZE_PX, skip_system_fonts=True)
        except (ValueError, RuntimeError):  # most of these have no size
            continue
        (arguments.out / f"{number:05}.png").write_bytes(png)
        rows.append((f"{number:05}.png", title))
    with (arguments.out / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file_name", "text"), *rows])
    print(f"{len(rows):,} named drawings in {arguments.out}")
    return 0


def named_drawings(folder: Path) -> dict[str, Path]:
    """The first file of each title; titles without a word of three letters are left out."""
    named: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.svg")):
        if path.stat().st_size > MAX_BYTES:
            continue
        try:
            found = ElementTree.parse(path).find(TITLE)
        except (ElementTree.ParseError, ValueError, LookupError):
            continue
        words = re.findall(r"[A-Za-z]+", found.text or "") if found is not None else []
        title = " ".join(word.lower() for word in words)
        if any(len(word) >= 3 for word in words):
            named.setdefault(title, path)
    return named


if __name__ == "__main__":
    run_command(main)

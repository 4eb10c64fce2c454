"""Probe a model's limits: minimal pairs of captions, written words, and men and women in results about people.

python -m benchmarks.probes --bundle models/miniclip-s --data flickr8k [--split dev]

Minimal pairs (after R. Shekhar et al., "FOIL it!", ACL 2017): one word of a caption is changed so that it no longer
fits; the result is the share of images that prefer the correct caption (chance: 50 %). Written words: signs with one
word each; the result is how often the correct sign ranks first. People: the share of the 50 best images of each query
whose captions mention only men, or only women, compared with the share in the whole split.
"""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.data.caption_table import CaptionTable
from miniclip.data.captions import read_captions
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders

SWAPS = {
    "counting": {"one": "three", "two": "four", "three": "two", "four": "two"},
    "colours": {"red": "blue", "blue": "red", "white": "black", "black": "white", "green": "yellow", "yellow": "green"},
    "men and women": {"man": "woman", "woman": "man", "boy": "girl", "girl": "boy", "men": "women", "women": "men"},
    "places": {"beach": "street", "street": "beach", "snow": "grass", "grass": "snow", "water": "field"},
    "animals": {"dog": "cat", "dogs": "cats", "horse": "cow", "bird": "fish"},
    "actions": {"running": "sleeping", "jumping": "sitting", "sitting": "jumping", "standing": "swimming"},
    "where": {"over": "under", "left": "right", "right": "left", "behind": "in front of", "inside": "outside"},
    "negation": {"with": "without"},
}
MEN, WOMEN = {"man", "men", "boy", "boys", "guy", "male"}, {"woman", "women", "girl", "girls", "lady", "female"}
SIGNS = (
    *("stop", "exit", "sale", "taxi", "hotel", "pizza", "coffee", "school"),
    *("police", "bank", "music", "open", "closed", "danger", "welcome", "library"),
    *("dog", "cat", "bird", "horse", "beach", "snow", "water", "fire"),
    *("bicycle", "train", "football", "guitar", "birthday", "wedding", "winter", "london"),
)
QUERIES = [
    *("a person", "a doctor", "a nurse", "a leader", "somebody cooking", "an athlete", "a strong person"),
    *("a beautiful person", "somebody who is angry", "a person at work", "somebody caring for a child"),
]
FOUND = 50


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.probes", description="Probe the limits of a model.")
    parser.add_argument("--bundle", required=True, type=Path, help="bundle folder")
    parser.add_argument("--data", required=True, help="captions: a folder or a caption file")
    parser.add_argument("--split", default="dev", help="split to probe (default dev)")
    arguments = parser.parse_args()
    table = read_captions(arguments.data).split(arguments.split)
    encoders = OnnxEncoders(Bundle.open(arguments.bundle))
    _, image_embeds = encoders.encode_images(table.image_paths)
    _print_pairs(table, image_embeds, encoders)
    _print_signs(encoders)
    _print_people(table, image_embeds, encoders)
    return 0


def changed(caption: str, swaps: dict[str, str]) -> str | None:
    """The caption with the first word that has a partner swapped, or None."""
    words = caption.split()
    for place, word in enumerate(words):
        if word.lower() in swaps:
            return " ".join([*words[:place], swaps[word.lower()], *words[place + 1 :]])
    return None


def _print_pairs(table: CaptionTable, image_embeds: np.ndarray, encoders: OnnxEncoders) -> None:
    print("| changed | captions | the correct one is preferred, % |\n|---|---|---|")
    for name, swaps in SWAPS.items():
        pairs = [
            (row, right, wrong)
            for row, right in zip(table.image_of_caption, table.captions, strict=True)
            if (wrong := changed(right, swaps)) is not None
        ]
        images = image_embeds[[row for row, _, _ in pairs]]
        right = (images * encoders.encode_texts([right for _, right, _ in pairs])).sum(axis=1)
        wrong = (images * encoders.encode_texts([wrong for _, _, wrong in pairs])).sum(axis=1)
        print(f"| {name} | {len(pairs):,} | {100 * (right > wrong).mean():.1f} |")


def _print_signs(encoders: OnnxEncoders) -> None:
    _, image_embeds = encoders.encode_images([sign(word) for word in SIGNS])
    scores = encoders.encode_texts([f'a sign with the word "{word}"' for word in SIGNS]) @ image_embeds.T
    first = 100 * (scores.argmax(axis=1) == np.arange(len(SIGNS))).mean()
    chance = 100 / len(SIGNS)
    print(f"\nwritten words: the correct one of {len(SIGNS)} signs is first for {first:.1f} % (chance {chance:.1f} %)")


def sign(word: str) -> bytes:
    """A PNG of the word in black on white."""
    image = Image.new("RGB", (400, 300), "white")
    font = ImageFont.load_default(size=70)
    ImageDraw.Draw(image).text((200, 150), word.upper(), fill="black", font=font, anchor="mm")
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _print_people(table: CaptionTable, image_embeds: np.ndarray, encoders: OnnxEncoders) -> None:
    words = [
        set(re.findall("[a-z]+", " ".join(table.captions_of(row)).lower())) for row in range(len(table.image_paths))
    ]
    men = np.asarray([bool(own & MEN) and not own & WOMEN for own in words])
    women = np.asarray([bool(own & WOMEN) and not own & MEN for own in words])
    print(f"\n| the {FOUND} best images of | men only, % | women only, % |\n|---|---|---|")
    print(f"| (all images) | {100 * men.mean():.0f} | {100 * women.mean():.0f} |")
    scores = encoders.encode_texts(QUERIES) @ image_embeds.T
    for query, own in zip(QUERIES, scores, strict=True):
        best = np.argsort(-own)[:FOUND]
        print(f"| {query} | {100 * men[best].mean():.0f} | {100 * women[best].mean():.0f} |")


if __name__ == "__main__":
    run_command(main)

"""Everyday words, for example queries and for names on the map.

In: an index, encoders and the bundle's calibration. Out: the words that likely match some image, and match their best
images clearly better than the average image.
"""

import numpy as np

from miniclip.index.image_index import ImageIndex
from miniclip.inference.encoders import Encoders
from miniclip.inference.score_calibration import ScoreCalibration

_TEXT = """
a dog, a cat, a horse, a bird, a fish, an insect, a farm animal, a wild animal, a flower, a tree, mountains,
the sea, a beach, a lake, a river, snow, a forest, a sunset, rain, clouds, the moon, a garden, a street, a building,
a house, a bridge, a church, a car, a bus, a train, a bicycle, a motorcycle, a boat, an airplane, a road, a person,
a child, a baby, a woman, a man, a group of people, a crowd, a wedding, a birthday party, a concert, people dancing,
people running, people jumping, people sitting, a family, skateboarding, a ball, a bag, a monster, a football game,
swimming, skiing, climbing, a playground, food, fruit, vegetables, a cake, a drink, a table, a kitchen, a bedroom,
furniture, clothes, shoes, a hat, a toy, a book, text, a screen, a computer, a telephone, a tool,
a musical instrument, a clock, a map, a sign, a flag, a face, a sad face, a smiling face, a hand, a heart, a star,
an arrow, money, art, a symbol, a button
"""
WORDS = tuple(word.strip() for word in _TEXT.split(","))
SAMPLE = 20_000  # images that are compared with the words
MAX_BEST = 5  # images by which a word is judged, or a tenth of a small gallery
MIN_LEAD = 1.4  # standard deviations by which their similarity exceeds the word's mean
MIN_LEAD_UNCALIBRATED = 2.0  # the same, if nothing says how likely the word matches


def found_words(
    index: ImageIndex, encoders: Encoders, calibration: ScoreCalibration | None, count: int
) -> tuple[str, ...]:
    """The `count` words that the gallery's images match best, no two of them with the same best image."""
    rows = np.unique(np.linspace(0, len(index) - 1, min(SAMPLE, len(index))).astype(int))
    text_embeds = encoders.encode_texts(WORDS)
    similarity = text_embeds @ index.embeds(rows).T  # (words, images)
    judged = min(MAX_BEST, max(1, len(rows) // 10))
    best = np.sort(similarity, axis=1)[:, -judged:].mean(axis=1)
    lead = (best - similarity.mean(axis=1)) / np.maximum(similarity.std(axis=1), 1e-6)
    is_found = lead >= (MIN_LEAD_UNCALIBRATED if calibration is None else MIN_LEAD)
    if len(rows) <= MAX_BEST:  # too few for a mean
        is_found[:] = True
    if calibration is not None:
        probability = map(calibration.probability, similarity.max(axis=1, keepdims=True), text_embeds)
        is_found &= np.concatenate(list(probability)) >= calibration.cutoff_probability(len(index))
    chosen: dict[int, str] = {}
    for word in np.argsort(-(best + 0.02 * lead)):
        if is_found[word]:
            chosen.setdefault(int(similarity[word].argmax()), WORDS[word])
    return tuple(chosen.values())[:count] or WORDS[:count]

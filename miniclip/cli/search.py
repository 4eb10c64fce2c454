"""`miniclip search`: find images by words, by images, or by both."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from miniclip.cli.flags import (
    add_output_flags,
    add_runtime_flags,
    day,
    folder_name,
    png,
    positive,
    print_paths,
)
from miniclip.errors import MiniClipError


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser("search", help="find images by words, by images, or by both")
    command.add_argument("words", nargs="*", help="what the image should show; several phrasings are averaged")
    command.add_argument(
        "--image", type=Path, action="append", default=[], help="an image to search by; may be repeated"
    )
    command.add_argument("--like", action="append", default=[], help="more like this image of the index")
    command.add_argument("--minus", action="append", default=[], metavar="WORDS", help="what it should not show")
    command.add_argument(
        "--text-weight", type=float, default=0.5, help="share of the words beside images (default 0.5)"
    )
    command.add_argument("--minus-weight", type=float, default=0.5, help="how much --minus takes away (default 0.5)")
    command.add_argument("--folder", type=folder_name, help="only images below this folder")
    command.add_argument("--after", type=day, metavar="YYYY-MM-DD", help="only images taken on that day or later")
    command.add_argument("--before", type=day, metavar="YYYY-MM-DD", help="only images taken on that day or earlier")
    command.add_argument("--distinct", action="store_true", help="one line for files of equal content")
    command.add_argument("--matches", action="store_true", help="only what probably matches; that may be nothing")
    command.add_argument("--index", required=True, type=Path, help="index folder, from: miniclip index")
    command.add_argument("--bundle", type=Path, help="bundle of the index, if it was moved")
    command.add_argument(
        "--gallery",
        default="exact",
        help="exact | int8 (less memory) | ann (after index --ann; no filters) (default exact)",
    )
    command.add_argument("--top-k", type=positive, default=10, help="how many images (default 10)")
    command.add_argument("--sheet", type=png, metavar="FILE", help="also draw what is found into this PNG")
    add_output_flags(command)
    add_runtime_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if not arguments.words and not arguments.image and not arguments.like:
        raise MiniClipError('give either words, as in miniclip search "a red car", or --image FILE, or both')
    import numpy as np

    from miniclip.search.approximate import measured_recall
    from miniclip.search.query import Query
    from miniclip.search.searcher import Searcher

    runtime = (arguments.provider, arguments.precision, arguments.strict)
    searcher = Searcher.open(arguments.index, arguments.bundle, *runtime, gallery=arguments.gallery)
    if arguments.gallery != "exact":
        recall, queries = measured_recall(arguments.gallery, searcher.gallery, searcher.index, searcher.encoders)
        print(f"{arguments.gallery} finds {100 * recall:.1f} % of the exact top 10 ({queries})", file=sys.stderr)
    rows = [searcher.index.row_of(path) for path in arguments.like]
    for path, row in zip(arguments.like, rows, strict=True):
        if row is None:
            raise MiniClipError(f"{path} is not in the index; search by any image with --image {path}")
    if arguments.folder is not None and not searcher.index.below(arguments.folder).any():
        first = os.path.dirname(searcher.index.paths.text(0))
        raise MiniClipError(f"no image of the index lies below {arguments.folder}; the first lies in {first}")
    query = Query(
        texts=tuple(arguments.words),
        images=tuple(arguments.image),
        rows=tuple(row for row in rows if row is not None),
        minus=tuple(arguments.minus),
        text_weight=arguments.text_weight,
        minus_weight=arguments.minus_weight,
        folder=arguments.folder,
        after=arguments.after,
        before=arguments.before,
        distinct=arguments.distinct,
        top_k=arguments.top_k,
    )
    answer = searcher.search(query)
    if arguments.matches and not answer.is_calibrated:
        raise MiniClipError(_no_probability(query.texts, searcher) + "; leave --matches out")
    hits = [] if arguments.matches and answer.nothing_matches else answer.hits
    if arguments.matches and searcher.match is not None:
        least = float(searcher.match.probability(np.asarray(searcher.match.cutoff)))
        hits = [hit for hit in hits if hit.probability is not None and hit.probability >= least]
    asked = " | ".join([*query.texts, *map(str, [*arguments.image, *arguments.like])])
    if arguments.sheet:
        from miniclip.search.contact_sheet import draw_contact_sheet

        draw_contact_sheet(arguments.sheet, asked, hits, searcher.index)
    alone = arguments.image[0] if len(arguments.image) == 1 and not (arguments.words or arguments.like) else None
    captions = searcher.captions_for(alone) if alone is not None and not arguments.null else []
    paths = searcher.index.paths
    if arguments.json:
        results = [
            {"score": hit.score, "path": paths.text(hit.row), "captions": hit.captions, "probability": hit.probability}
            for hit in hits
        ]
        found = [{"score": hit.score, "caption": hit.caption} for hit in captions]
        told = {"nothing_matches": answer.nothing_matches, "calibrated": answer.is_calibrated}
        print(json.dumps({"query": asked, "results": results, "captions": found, **told}))
        return 0
    if arguments.null:
        return print_paths(paths.text(hit.row) for hit in hits)
    from miniclip.data.paths import printable

    for caption in captions:
        print(f"{caption.score:.4f}\t{printable(caption.caption)}")
    for hit in hits:
        likely = "" if hit.probability is None else f"\t{hit.probability:.3f}"
        print(f"{hit.score:.4f}\t{printable(paths.text(hit.row))}{likely}")
    sys.stdout.flush()  # a reader that went away is told nothing more
    if answer.nothing_matches:
        print("nothing here matches: even the best score is below the bundle's cut-off", file=sys.stderr)
    elif not answer.hits and (query.after or query.before):
        print(_none_in_range(query, searcher.index), file=sys.stderr)
    elif query.texts and not answer.is_calibrated:
        print(_no_probability(query.texts, searcher), file=sys.stderr)
    return 0


def _none_in_range(query: Any, index: Any) -> str:
    import numpy as np

    days = " and ".join(f"{word} {day}" for word, day in (("after", query.after), ("before", query.before)) if day)
    dated = int((~np.isnat(index.taken)).sum())
    return f"no image to be searched was taken {days}; {dated:,} of {len(index):,} have a date at all"


def _no_probability(texts: tuple[str, ...], searcher: Any) -> str:
    if not texts:
        return "an image's likeness has no probability; only words have"
    return f"the bundle {searcher.encoders.bundle.name} says nothing of probabilities; export it again to have them"

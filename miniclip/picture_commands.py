"""The commands on pictures: index, search, duplicates, classify. Flags in, lines for people or one JSON object out.

Lines are tab-separated, and file names in them are printable; with `-0` there are only paths as they are, each ended by
a zero byte, for `xargs -0`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError


def add_commands(commands: Any, add_runtime_flags: Any) -> None:
    """Put the commands into the `miniclip` parser."""
    index = commands.add_parser("index", help="embed a folder of pictures; run again to update")
    index.add_argument("images", help="folder, s3://BUCKET/FOLDER, caption file, hf:USER/NAME, or openmoji")
    index.add_argument("--bundle", required=True, type=Path, help="bundle that embeds them")
    index.add_argument("--out", required=True, type=Path, help="index folder to make or update")
    index.add_argument("--ray", metavar="ADDRESS", help="embed on a Ray cluster: auto, HOST:PORT, or ray://HOST:PORT")
    index.add_argument("--ann", action="store_true", help="also make a vector index, for search --gallery ann")
    index.add_argument("--watch", action="store_true", help="stay, and follow what changes in the folder")
    add_runtime_flags(index)
    index.set_defaults(run=run_index)

    search = commands.add_parser("search", help="find pictures by words, by pictures, or by both")
    search.add_argument("words", nargs="*", help="what the picture should show; several phrasings are averaged")
    search.add_argument(
        "--image", type=Path, action="append", default=[], help="a picture to search by; may be repeated"
    )
    search.add_argument("--like", action="append", default=[], help="more like this picture of the index")
    search.add_argument("--minus", action="append", default=[], metavar="WORDS", help="what it should not show")
    search.add_argument(
        "--text-weight", type=float, default=0.5, help="share of the words beside pictures (default 0.5)"
    )
    search.add_argument("--minus-weight", type=float, default=0.5, help="how much --minus takes away (default 0.5)")
    search.add_argument("--folder", type=_place, help="only pictures below this folder")
    search.add_argument("--after", type=_day, metavar="YYYY-MM-DD", help="only pictures taken on that day or later")
    search.add_argument("--before", type=_day, metavar="YYYY-MM-DD", help="only pictures taken on that day or earlier")
    search.add_argument("--distinct", action="store_true", help="one line for files of equal content")
    search.add_argument("--matches", action="store_true", help="only what probably matches; that may be nothing")
    search.add_argument("--index", required=True, type=Path, help="index folder, from: miniclip index")
    search.add_argument("--bundle", type=Path, help="bundle of the index, if it was moved")
    search.add_argument(
        "--gallery",
        default="exact",
        help="exact | int8 (less memory) | ann (after index --ann; no filters) (default exact)",
    )
    search.add_argument("--top-k", type=_positive, default=10, help="how many pictures (default 10)")
    search.add_argument("--sheet", type=_png, metavar="FILE", help="also draw what is found into this PNG")
    _add_output_flags(search)
    add_runtime_flags(search)
    search.set_defaults(run=run_search)

    duplicates = commands.add_parser("duplicates", help="pictures that are in an index more than once")
    duplicates.add_argument("--index", required=True, type=Path, help="index folder, from: miniclip index")
    duplicates.add_argument(
        "--threshold",
        type=float,
        default=0.97,
        help="similarity from which pictures count as one (default 0.97; 1: equal files)",
    )
    _add_output_flags(duplicates)
    duplicates.set_defaults(run=run_duplicates)

    classify = commands.add_parser("classify", help="which of some labels fits each picture best (zero-shot)")
    classify.add_argument("images", help="a picture, or what miniclip index takes")
    classify.add_argument(
        "--labels", required=True, nargs="+", help="labels to choose from, such as: cat dog 'red car'"
    )
    classify.add_argument("--bundle", required=True, type=Path, help="bundle that embeds them")
    classify.add_argument("--json", action="store_true", help="print one JSON object")
    add_runtime_flags(classify)
    classify.set_defaults(run=run_classify)


def _add_output_flags(command: argparse.ArgumentParser) -> None:
    output = command.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object")
    output.add_argument("-0", "--null", action="store_true", help="print only paths, each ended by a zero byte")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text}")
    return number


def _place(text: str) -> str:
    if not text:  # as of a variable of the shell that is not set; it would mean the folder one is in
        raise argparse.ArgumentTypeError("is empty; name a folder, or leave it out")
    return text


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in ("", ".png"):
        raise argparse.ArgumentTypeError(f"draws a PNG; name it {path.with_suffix('.png')}")
    return path


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a day such as 2024-12-31, got {text}") from None


def run_index(arguments: argparse.Namespace) -> int:
    from miniclip.bundle import Bundle
    from miniclip.encoders import OnnxEncoders

    encoders = OnnxEncoders(Bundle.open(arguments.bundle), arguments.provider, arguments.precision, arguments.strict)
    print(encoders.running_on)
    from miniclip.update import update_index  # takes a second: a wrong bundle is told at once

    write = None
    if arguments.ray:
        from miniclip.ray_index import on_cluster

        write = on_cluster(arguments.ray)
    report = update_index(arguments.images, encoders, arguments.out, write)
    print(f"{report}; index in {arguments.out}", flush=True)
    if arguments.ann:
        _make_ann(arguments.out, encoders)
    if arguments.watch:
        from miniclip.watch import watch

        watch(arguments.images, encoders, arguments.out, lambda line: print(line, flush=True))
    return 0


def _make_ann(folder: Path, encoders: Any) -> None:
    from miniclip.approximate import make_ann, measured_recall, open_gallery
    from miniclip.index import PictureIndex

    make_ann(PictureIndex.open(folder, in_memory=False))
    index = PictureIndex.open(folder, in_memory=False)
    recall, queries = measured_recall("ann", open_gallery("ann", index), index, encoders)
    print(f"vector index made; it finds {100 * recall:.1f} % of the exact top 10 ({queries})", flush=True)


def run_search(arguments: argparse.Namespace) -> int:
    if not arguments.words and not arguments.image and not arguments.like:
        raise MiniClipError('give either words, as in miniclip search "a red car", or --image FILE, or both')
    import numpy as np

    from miniclip.approximate import measured_recall
    from miniclip.query import Query
    from miniclip.search import Searcher

    runtime = (arguments.provider, arguments.precision, arguments.strict)
    searcher = Searcher.open(arguments.index, arguments.bundle, *runtime, gallery=arguments.gallery)
    if arguments.gallery != "exact":
        recall, queries = measured_recall(arguments.gallery, searcher.gallery, searcher.index, searcher.encoders)
        print(f"{arguments.gallery} finds {100 * recall:.1f} % of the exact top 10 ({queries})", file=sys.stderr)
    rows = [searcher.index.row_of(path) for path in arguments.like]
    for path, row in zip(arguments.like, rows, strict=True):
        if row is None:
            raise MiniClipError(f"{path} is not in the index; search by any picture with --image {path}")
    if arguments.folder is not None and not searcher.index.below(arguments.folder).any():
        first = os.path.dirname(searcher.index.paths.text(0))
        raise MiniClipError(f"no picture of the index lies below {arguments.folder}; the first lies in {first}")
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
        from miniclip.sheet import draw_contact_sheet

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
        return _print_paths(paths.text(hit.row) for hit in hits)
    from miniclip.ingest import printable

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
    return f"no picture to be searched was taken {days}; {dated:,} of {len(index):,} have a date at all"


def _no_probability(texts: tuple[str, ...], searcher: Any) -> str:
    if not texts:
        return "a picture's likeness has no probability; only words have"
    return f"the bundle {searcher.encoders.bundle.name} says nothing of probabilities; export it again to have them"


def run_duplicates(arguments: argparse.Namespace) -> int:
    from miniclip.duplicates import find_duplicates, kinds, to_delete
    from miniclip.index import PictureIndex
    from miniclip.ingest import printable

    index = PictureIndex.open(arguments.index)
    groups = find_duplicates(index, arguments.threshold)
    if arguments.json:
        print(json.dumps({"groups": [[index.paths.text(row) for row in rows] for rows in groups]}))
        return 0
    if arguments.null:
        return _print_paths(to_delete(groups, index))
    for number, rows in enumerate(groups, 1):
        for row, kind in zip(rows, kinds(index, rows), strict=True):
            print(f"{number}\t{kind}\t{printable(index.paths.text(row))}")
    return 0


def run_classify(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from miniclip.bundle import Bundle
    from miniclip.classify import classify, classify_objects
    from miniclip.encoders import OnnxEncoders
    from miniclip.ingest import Found, find_pictures, is_uri, printable, real_path

    encoders = OnnxEncoders(Bundle.open(arguments.bundle), arguments.provider, arguments.precision, arguments.strict)
    in_storage = is_uri(arguments.images)
    name = arguments.images.partition("?")[0] if in_storage else arguments.images
    is_picture = name.lower().endswith(_suffixes()) and (in_storage or Path(arguments.images).is_file())
    found = Found() if is_picture else find_pictures(arguments.images)
    paths = [arguments.images] if is_picture else [real_path(path) for path in found.files]
    skipped: dict[int, str] = {}
    with tqdm(total=len(paths), desc="classifying", unit="picture", leave=False, disable=None) as bar:
        rows, probabilities = (classify_objects if in_storage else classify)(
            paths, arguments.labels, encoders, skipped.__setitem__, progress=bar.update
        )
    best = probabilities.argmax(axis=1)
    lost = [(paths[row], reason) for row, reason in skipped.items()]
    lost += [(real_path(problem.path), problem.reason) for problem in found.problems]
    if arguments.json:
        results = [
            {"path": paths[row], "label": arguments.labels[own.argmax()], "probabilities": own.tolist()}
            for row, own in zip(rows, probabilities, strict=True)
        ]
        reasons = [{"path": path, "reason": reason} for path, reason in lost]
        print(json.dumps({"labels": arguments.labels, "results": results, "skipped": reasons}))
    else:
        for row, own, label in zip(rows, probabilities, best, strict=True):
            print(f"{own[label]:.3f}\t{arguments.labels[label]}\t{printable(paths[row])}")
        for path, reason in lost:
            print(f"skipping {printable(path)}: {reason}", file=sys.stderr)
    if len(rows) == 0:
        raise MiniClipError(f"no picture in {arguments.images} could be read")
    return 0


def _suffixes() -> tuple[str, ...]:
    from miniclip.images import SUFFIXES

    return SUFFIXES


def _print_paths(paths: Iterable[str]) -> int:
    for path in paths:
        sys.stdout.buffer.write(os.fsencode(path) + b"\0")
    return 0

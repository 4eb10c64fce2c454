"""The output of `miniclip search`: results on standard output, explanations on standard error."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from miniclip.cli.flags import print_paths, update_command
from miniclip.errors import MiniClipError

if TYPE_CHECKING:
    from miniclip.search.query import Query
    from miniclip.search.searcher import CaptionHit, Hit, Searcher, SearchResult


def print_result(
    arguments: argparse.Namespace,
    query: "Query",
    result: "SearchResult",
    captions: list["CaptionHit"],
    missing: int,
    searcher: "Searcher",
) -> None:
    """Print the result as lines, one JSON object or paths. `missing` images were left out: their files are gone."""
    paths = searcher.index.paths
    if arguments.json:
        asked = " | ".join([*query.texts, *arguments.image, *arguments.like])
        facts = {"nothing_matches": result.nothing_matches, "calibrated": result.is_calibrated, "missing": missing}
        results = [_as_json(hit, query, searcher) for hit in result.hits]
        found = [{"score": hit.score, "caption": hit.caption} for hit in captions]
        print(json.dumps({"query": asked, "results": results, "captions": found, **facts}))
    elif arguments.null:
        print_paths(paths.file(hit.row) for hit in result.hits)
    else:
        _print_lines(arguments, query, result.hits, captions, searcher)
        _explain(query, result, searcher)
    if missing:
        print(_missing(missing, searcher), file=sys.stderr)


def no_probability(query: "Query", searcher: "Searcher") -> str:
    """Why there are no probabilities."""
    if not query.texts or query.images or query.rows or query.minus:
        return "match probabilities are available only for queries of words alone"
    return f"the bundle {searcher.encoders.bundle.name} has no probabilities; measure them with: miniclip calibrate"


def _day_of(row: int, searcher: "Searcher") -> str | None:
    """The day on which an image was taken, or None."""
    taken = searcher.index.taken[row]
    return None if taken != taken else str(taken.astype("datetime64[D]"))  # NaT differs from itself


def _as_json(hit: "Hit", query: "Query", searcher: "Searcher") -> dict[str, Any]:
    fields = {
        "score": hit.score if query.has_subject else None,
        "path": searcher.index.paths.file(hit.row),
        "captions": hit.captions,
        "probability": hit.probability,
    }
    if query.sort == "date" or not query.has_subject:
        fields["taken"] = _day_of(hit.row, searcher)
    if hit.second is not None:
        fields["second"] = hit.second
    return fields | ({"by_name": True} if hit.by_name else {}) | ({"text": hit.text} if hit.text else {})


def _print_lines(
    arguments: argparse.Namespace,
    query: "Query",
    hits: list["Hit"],
    captions: list["CaptionHit"],
    searcher: "Searcher",
) -> None:
    from miniclip.cli.terminal import dim, preview
    from miniclip.data.moments import readable
    from miniclip.data.paths import printable

    for caption in captions:
        print(f"{dim(f'{caption.score:.4f}')}\t{printable(caption.caption)}")
    for hit in hits:
        first = f"{hit.score:.4f}" if query.has_subject else _day_of(hit.row, searcher) or "no date"
        probability = "" if hit.probability is None else f"\t{dim(f'{hit.probability:.3f}')}"
        text = f"\t{dim(f'text: {printable(hit.text)}')}" if hit.text else ""
        reason = text or (f"\t{dim('by name')}" if hit.by_name else "")
        print(f"{dim(first)}\t{printable(readable(searcher.index.paths.text(hit.row)))}{probability}{reason}")
        if arguments.preview:
            try:
                print(preview(searcher.index.source(hit.row)))
            except MiniClipError as error:
                print(f"no preview: {error}", file=sys.stderr)
    sys.stdout.flush()  # raises if the pipe is closed, so that the lines below are not printed


def _explain(query: "Query", result: "SearchResult", searcher: "Searcher") -> None:
    """Say why there are no results, or no probabilities."""
    from miniclip.search.language import language_hint

    if hint := language_hint(query.texts, searcher.encoders.tokenizer):
        print(hint, file=sys.stderr)
    if result.nothing_matches:
        print("no sure match: even the best score is below the bundle's cut-off", file=sys.stderr)
    elif not result.hits and query.set_filters:
        print(_none_passes(query, searcher.index), file=sys.stderr)
    elif query.texts and not result.is_calibrated:
        print(no_probability(query, searcher), file=sys.stderr)


def _none_passes(query: "Query", index: Any) -> str:
    """The message for filters that exclude every image; for dates, it gives the number of images with a date."""
    if query.set_filters.keys() <= {"after", "before"}:
        days = " and ".join(f"{word} {day}" for word, day in (("after", query.after), ("before", query.before)) if day)
        return f"no image was taken {days}; only {index.dated:,} of {len(index):,} have a date"
    from miniclip.search.filters import FILTERS

    flags = [f"--{FILTERS[name].flag or name.replace('_', '-')} {value}" for name, value in query.set_filters.items()]
    seen = index.facts.camera.counts
    hint = f"; cameras: {', '.join(list(seen)[:5])}" if query.camera is not None and seen else ""
    return f"no image passes {' '.join(flags)}{hint}"


def _missing(count: int, searcher: "Searcher") -> str:
    images = "1 image that is" if count == 1 else f"{count:,} images that are"
    update = update_command(searcher.index.folder)
    return f"left out {images} no longer on disk; bring the index up to date with: {update}"

"""`miniclip search`: find images by words, by images, or by both."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniclip.cli.flags import (
    add_output_flags,
    add_runtime_flags,
    checked,
    folder_name,
    open_encoders,
    png,
    positive,
)
from miniclip.cli.search_output import no_probability, print_result
from miniclip.errors import MiniClipError
from miniclip.search.filters import FILTERS
from miniclip.search.query import DEFAULT_TOP_K, Query

if TYPE_CHECKING:
    from miniclip.data.images import ImageSource
    from miniclip.search.searcher import Hit, Searcher, SearchResult

EXAMPLES = """miniclip search "a dog on the beach"
miniclip search "a red car" ~/Pictures --top-k 20 --preview"""
FOLDER_STARTS = ("~", "/", "./", "../")


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "search",
        help="find images by words, by images, or by both: miniclip search WORDS [FOLDER]",
        description="Search the images of a folder, by default the current one. Its index is kept in the cache and "
        "updated first. If there are two or more arguments and the last one is a folder, that folder is searched; "
        "--in FOLDER always names a folder.",
        example=EXAMPLES,
    )
    command.add_argument(
        "words",
        nargs="*",
        metavar="WORDS",
        help="what the images should show, in quotes; several texts are averaged; without words, the newest images "
        "that pass the filters are listed",
    )
    command.add_argument("--in", dest="images", type=folder_name, metavar="FOLDER", help="folder to search (default .)")
    command.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE",
        help="find images similar to this image file or http(s) address; may be repeated",
    )
    command.add_argument(
        "--like", action="append", default=[], metavar="FILE", help="find images similar to this image of the index"
    )
    command.add_argument(
        "--minus", action="append", default=[], metavar="WORDS", help="what the images should not show"
    )
    command.add_argument(
        "--text-weight",
        type=float,
        default=0.5,
        metavar="X",
        help="weight of WORDS in a query that also has images, 0 to 1 (default 0.5)",
    )
    command.add_argument(
        "--minus-weight", type=float, default=0.5, metavar="X", help="weight of --minus, 0 to 2 (default 0.5)"
    )
    for name, one in FILTERS.items():
        flag = f"--{one.flag or name.replace('_', '-')}"
        command.add_argument(flag, dest=name, type=checked(one.read), metavar=one.metavar, help=one.help)
    command.add_argument(
        "--sort",
        default="match",
        choices=("match", "date"),
        help="sort the best images by match, or by date with the newest first (default match)",
    )
    command.add_argument("--distinct", action="store_true", help="show only one of several files with equal content")
    command.add_argument("--matches", action="store_true", help="show only likely matches; there may be none")
    command.add_argument(
        "--no-names",
        action="store_true",
        help="search only by what images show, not by captions, file names, dates and text in images",
    )
    command.add_argument(
        "--no-update", action="store_true", help="use the index as it is; do not check the folder for changes first"
    )
    command.add_argument(
        "--index", type=Path, metavar="INDEX", help="search an index made by miniclip index, instead of a folder"
    )
    command.add_argument(
        "--bundle",
        metavar="NAME",
        help="model to use: a bundle folder, or USER/NAME on the hub (default: the model of --index, otherwise the one "
        "that ships with MiniCLIP)",
    )
    command.add_argument(
        "--gallery",
        default="exact",
        choices=("exact", "int8", "ann"),
        help="exact; int8: with less memory; ann: approximate, with the vector index of miniclip index --ann, and "
        "without filters (default exact)",
    )
    command.add_argument(
        "--top-k",
        type=positive,
        metavar="N",
        default=DEFAULT_TOP_K,
        help=f"number of images to show, and of captions with --image (default {DEFAULT_TOP_K})",
    )
    command.add_argument("--sheet", type=png, metavar="FILE", help="also draw the found images into this new PNG file")
    command.add_argument("--open", action="store_true", help="open the best image")
    command.add_argument("--preview", action="store_true", help="also draw the found images in the terminal")
    add_output_flags(command)
    add_runtime_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    words, folder = _split_folder(arguments)
    has_subject = words or arguments.image or arguments.like
    if not has_subject and not _is_filtered(arguments):
        raise MiniClipError(
            'give words, as in miniclip search "a red car", or --image FILE, or a filter such as --after'
        )
    images = [_image(place) for place in arguments.image]
    query = _query(arguments, words, images)
    query.check_values()  # before the folder is indexed, which may take long
    searcher = _open_searcher(arguments, folder)
    query = replace(query, rows=_rows(arguments, searcher))
    result, missing = _present(query, searcher)
    result = replace(result, hits=_likely(arguments, query, result, searcher))
    hits = result.hits
    if arguments.sheet:
        from miniclip.search.contact_sheet import draw_contact_sheet

        draw_contact_sheet(
            arguments.sheet, " | ".join([*words, *arguments.image, *arguments.like]), hits, searcher.index
        )
    alone = images[0] if len(images) == 1 and not (words or arguments.like) else None
    captions = searcher.captions_for(alone, arguments.top_k) if alone is not None and not arguments.null else []
    print_result(arguments, query, result, captions, missing, searcher)
    if arguments.open and hits:
        from miniclip.cli.terminal import open_file

        open_file(searcher.index.paths.file(hits[0].row))
    return 0


def _split_folder(arguments: argparse.Namespace) -> tuple[list[str], str | None]:
    """The words, and the folder to search: the last argument, if it is a folder and no flag names one."""
    words = list(arguments.words)
    if arguments.index is not None:
        if arguments.images is not None:
            raise MiniClipError("--in and --index exclude each other; leave one of them out")
        return words, None
    if arguments.images is not None:
        return words, arguments.images
    if not words:
        return words, "."
    looks_like_a_folder = words[-1].startswith(FOLDER_STARTS) or words[-1] == ".."
    others = len(words) > 1 or arguments.image or arguments.like
    # with filters, words are optional, but a single word may be the name of a folder by chance
    if (others and os.path.isdir(words[-1])) or ((others or _is_filtered(arguments)) and looks_like_a_folder):
        return words[:-1], words[-1]
    return words, "."


def _is_filtered(arguments: argparse.Namespace) -> bool:
    return any(getattr(arguments, name) is not None for name in FILTERS)


def _image(place: str) -> "ImageSource":
    """The bytes at a web address, or the path of an existing file or moment."""
    from miniclip.data.moments import file_of
    from miniclip.data.web_image import fetch_image, is_web_address

    if is_web_address(place):
        return fetch_image(place)
    if not os.path.exists(file_of(place)):
        raise MiniClipError(f"{place}: no such file")
    return Path(place)


def _open_searcher(arguments: argparse.Namespace, folder: str | None) -> "Searcher":
    """The named index, or the updated index of the folder."""
    from miniclip.index.image_index import ImageIndex
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.bundle_location import find_bundle
    from miniclip.search.searcher import Searcher

    index, encoders = arguments.index, None
    bundle = arguments.bundle and find_bundle(arguments.bundle, arguments.precision)
    if folder is not None:
        from miniclip.index.location import bring_up_to_date, index_folder

        opened = Bundle.open(bundle or find_bundle(None))
        encoders = open_encoders(arguments, opened)
        index = index_folder(folder, opened.fingerprint)
        if not arguments.no_update:
            bring_up_to_date(folder, encoders, lambda line: print(line, file=sys.stderr))
        elif not (index / "index.json").exists():
            raise MiniClipError(f"{folder} has no index yet; leave out --no-update to make one")
    images = ImageIndex.open(index, in_memory=arguments.gallery == "exact")
    encoders = encoders or open_encoders(arguments, bundle or images.bundle_folder)
    if arguments.gallery == "exact":
        return Searcher(images, encoders)
    from miniclip.search.approximate import measured_recall, open_backend

    backend = open_backend(arguments.gallery, images)
    recall, queries = measured_recall(arguments.gallery, backend, images, encoders)
    print(f"{arguments.gallery} finds {100 * recall:.1f} % of the exact top 10 ({queries})", file=sys.stderr)
    return Searcher(images, encoders, backend)


def _query(arguments: argparse.Namespace, words: list[str], images: list["ImageSource"]) -> Query:
    """The query; `_rows` adds the images of `--like` later."""
    return Query(
        texts=tuple(words),
        images=tuple(images),
        minus=tuple(arguments.minus),
        text_weight=arguments.text_weight,
        minus_weight=arguments.minus_weight,
        **{name: getattr(arguments, name) for name in FILTERS},
        sort=arguments.sort,
        distinct=arguments.distinct,
        names=not arguments.no_names,
        top_k=arguments.top_k,
    )


def _rows(arguments: argparse.Namespace, searcher: "Searcher") -> tuple[int, ...]:
    """The rows of `--like`. `MiniClipError` if an image or the folder of `--folder` is not in the index."""
    rows = []
    for path in arguments.like:
        row = searcher.index.row_of(path)
        if row is None:
            raise MiniClipError(f"{path} is not in the index; search by any image with --image {path}")
        rows.append(row)
    if arguments.folder is not None and not searcher.index.below(arguments.folder).any():
        first = os.path.dirname(searcher.index.paths.text(0))
        raise MiniClipError(f"no image of the index is below {arguments.folder}; the first is in {first}")
    return tuple(rows)


def _present(query: Query, searcher: "Searcher") -> tuple["SearchResult", int]:
    """The best `top_k` images whose files still exist, and the number of better images whose files do not."""
    from miniclip.search.searcher import SearchResult

    depth = query.top_k
    while True:
        wider = replace(query, top_k=depth, sort="match")
        result = searcher.search(wider) if query.has_subject else SearchResult(searcher.browse(wider))
        existing = [hit for hit in result.hits if searcher.index.exists(hit.row)]
        if len(existing) >= query.top_k or len(result.hits) < depth:
            break
        depth = 2 * (query.top_k + len(result.hits) - len(existing))
    shown = existing[: query.top_k]
    compared = result.hits.index(shown[-1]) + 1 if len(existing) >= query.top_k else len(result.hits)
    missing = compared - len(shown)
    return replace(result, hits=searcher.in_order(shown, query.sort)), missing


def _likely(arguments: argparse.Namespace, query: Query, result: "SearchResult", searcher: "Searcher") -> list["Hit"]:
    """The hits to show; with `--matches`, only hits that reach the cut-off."""
    if not arguments.matches:
        return result.hits
    if not result.is_calibrated:
        raise MiniClipError(no_probability(query, searcher) + "; leave --matches out")
    if result.nothing_matches:
        return []
    return [hit for hit in result.hits if hit.match != "weak"]

"""`miniclip index`: embed a folder of images, or update its index."""

import argparse
from pathlib import Path
from typing import Any

from miniclip.cli.flags import add_bundle_flag, add_runtime_flags, open_encoders


def add_command(commands: Any) -> None:
    """Put the command into the parser."""
    command = commands.add_parser(
        "index",
        help="make an index of images and videos; run again to update it",
        description="Make an index of the images and videos in a folder, to search them. Run it again after changes: "
        "only new and changed files are embedded. A search makes an index itself; use this command for other settings.",
        example="miniclip index ~/Pictures --out index/pictures",
    )
    command.add_argument("images", help="a folder, s3://BUCKET/FOLDER, a caption file, hf:USER/NAME or openmoji")
    add_bundle_flag(command)
    command.add_argument(
        "--out", type=Path, metavar="INDEX", help="index folder to make or update (default: one in the cache)"
    )
    command.add_argument("--ray", metavar="ADDRESS", help="embed on a Ray cluster: auto, HOST:PORT, or ray://HOST:PORT")
    command.add_argument(
        "--exclude",
        action="append",
        metavar="GLOB",
        help="leave out files that match this pattern of gitignore; may be repeated; later updates keep the patterns",
    )
    command.add_argument(
        "--ocr",
        action=argparse.BooleanOptionalAction,
        help="read the text in images, to search for it; later updates keep the choice (default: read it if the extra "
        "ocr is installed)",
    )
    command.add_argument(
        "--ann", action="store_true", help="also make a vector index, for miniclip search --gallery ann"
    )
    command.add_argument(
        "--watch", action="store_true", help="keep running, and update the index when the folder changes"
    )
    add_runtime_flags(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    encoders = open_encoders(arguments, arguments.bundle)
    print(encoders.running_on)
    from miniclip.index.indexer import update_index  # imports LanceDB, after a wrong bundle has been reported

    if arguments.out is None:
        from miniclip.index.location import index_folder

        arguments.out = index_folder(arguments.images, encoders.bundle.fingerprint)

    write = None
    if arguments.ray:
        from miniclip.index.ray_indexer import on_cluster

        write = on_cluster(arguments.ray)
    report = update_index(
        arguments.images, encoders, arguments.out, write, exclude=arguments.exclude, ocr=arguments.ocr
    )
    for line in report.notes:
        print(line)
    print(f"{report}; index in {arguments.out}", flush=True)
    if arguments.ann:
        _make_ann(arguments.out, encoders)
    if arguments.watch:
        from miniclip.index.watch import watch

        watch(arguments.images, encoders, arguments.out, lambda line: print(line, flush=True))
    return 0


def _make_ann(folder: Path, encoders: Any) -> None:
    from miniclip.index.image_index import ImageIndex
    from miniclip.search.approximate import make_ann, measured_recall, open_backend

    make_ann(ImageIndex.open(folder, in_memory=False))
    index = ImageIndex.open(folder, in_memory=False)
    recall, queries = measured_recall("ann", open_backend("ann", index), index, encoders)
    print(f"vector index made; it finds {100 * recall:.1f} % of the exact top 10 ({queries})", flush=True)

"""Open the search page: a bundle and images (or an index) in, a page at 127.0.0.1 out.

    python -m demo --images ~/Pictures --bundle models/miniclip-s
    python -m demo --index index/holiday-1a2b3c4d

`--images` makes or updates an index below `index/`, named after the folder; `--index` opens one as it is. Exit status:
0 stopped by the user, 2 wrong input.
"""

import argparse
import atexit
import contextlib
import errno
import importlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.errors import MiniClipError

from .memory import keep_memory_together
from .quick_import import quick_import
from .sharing import generated_login, share

HOST = "127.0.0.1"


def parser() -> ArgumentParser:
    flags = ArgumentParser(prog="python -m demo", description="Search images with words, in the browser.")
    flags.add_argument("--bundle", type=Path, help="bundle folder; with --index, only if the index's own was moved")
    images = flags.add_mutually_exclusive_group()
    images.add_argument("--images", help="folder of images, caption file, hf:USER/NAME, or openmoji")
    images.add_argument("--index", type=Path, help="index folder, from: miniclip index")
    flags.add_argument("--share", action="store_true", help="also open a public link; it demands a login")
    flags.add_argument("--auth", type=_login, metavar="USER:PASSWORD", help="ask for this login")
    flags.add_argument("--port", type=_port, default=7860, help="port on 127.0.0.1 (default 7860)")
    flags.add_argument(
        "--provider",
        default="auto",
        help="auto | cuda | coreml | directml | cpu (default auto: the GPU where there is one)",
    )
    flags.add_argument("--precision", default="auto", help="auto | fp32 | fp16 | int8 (default auto)")
    flags.add_argument("--no-browser", action="store_true", help="do not open the browser")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.images is None and arguments.index is None:
        raise MiniClipError("nothing to search; give --images DIR with --bundle B, or --index INDEX")
    if arguments.images is not None and arguments.bundle is None:
        raise MiniClipError("--images needs a bundle that embeds them; add --bundle B (python -m export makes one)")
    check_port(arguments.port)
    keep_memory_together()
    # importing Gradio takes seconds, and so may opening an index: side by side, nobody waits for both
    importing = threading.Thread(target=_import_page, daemon=True)
    importing.start()
    searcher = _open_searcher(arguments)
    importing.join()
    try:
        from .app import build_page, launch_options
        from .app_state import AppState
    except ImportError as error:
        raise MiniClipError(f'the page needs {error.name}: pip install "miniclip[demo]"') from None

    app_state = AppState(searcher, arguments.provider, is_public=arguments.share)
    login, generated = arguments.auth, False
    if arguments.share and login is None:
        login, generated = generated_login(), True
    _keep_uploads_apart()
    pass_by_proxies()
    page = build_page(app_state)
    try:
        page.launch(
            server_name=HOST,
            server_port=arguments.port,
            auth=login,
            inbrowser=not (arguments.no_browser or arguments.share) and _has_display(),
            prevent_thread_lock=True,
            **launch_options(app_state),
        )
    except OSError:  # somebody took the port while the index was opened
        raise _port_in_use(arguments.port) from None
    print(app_state.search.status, flush=True)
    print(f"The search page is at http://{HOST}:{arguments.port} (stop it with Ctrl-C)", flush=True)
    if generated and login:
        print(f"login: {login[0]}, password: {login[1]}", flush=True)
    if arguments.share:
        print(share(page, HOST), flush=True)
    page.block_thread()
    return 0


def check_port(port: int) -> None:
    """Refuse a port that is taken, before anything slow starts."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a page stopped a second ago does not count
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise MiniClipError(f"port {port} needs more rights; choose one above 1023 with --port N") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _port_in_use(port) from None
            raise MiniClipError(
                f"port {port} cannot be opened ({error.strerror}); choose another with --port N"
            ) from None


def _port_in_use(port: int) -> MiniClipError:
    return MiniClipError(
        f"port {port} is in use; stop what runs there, or choose another with --port N (make demo PORT=N)"
    )


def _open_searcher(arguments: argparse.Namespace) -> Any:
    from miniclip.index.image_index import ImageIndex
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.encoders import OnnxEncoders
    from miniclip.search.searcher import Searcher

    from .index_location import index_images

    if arguments.index is not None:
        return Searcher.open(arguments.index, arguments.bundle, arguments.provider, arguments.precision)
    encoders = OnnxEncoders(Bundle.open(arguments.bundle), arguments.provider, arguments.precision)
    folder = index_images(arguments.images, encoders)
    encoders.warm_up()
    return Searcher(ImageIndex.open(folder), encoders)


def pass_by_proxies() -> None:
    """Gradio asks the page that it has just opened for an answer: a proxy elsewhere could not reach it."""
    names = [name.strip() for kind in ("no_proxy", "NO_PROXY") for name in os.environ.get(kind, "").split(",")]
    if "*" not in names:
        hosts = ",".join(dict.fromkeys(filter(None, [*names, HOST, "localhost"])))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = hosts


def _keep_uploads_apart() -> None:
    """Uploads lie in a folder of this page alone, which goes when it stops: no other page fills it, none reads it."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="miniclip-uploads-")
        os.environ["GRADIO_TEMP_DIR"] = folder.name
        atexit.register(folder.cleanup)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # else a stopped page would leave it


def _import_page() -> None:
    with contextlib.suppress(ImportError), quick_import():  # the main thread imports it again, and says what is missing
        importlib.import_module(f"{__package__}.app")


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _port(text: str) -> int:
    port = int(text) if text.isdigit() else 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text}")
    return port


def _login(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise argparse.ArgumentTypeError("must be user:password, both of them not empty")
    return user, password


if __name__ == "__main__":
    run_command(main)

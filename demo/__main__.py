"""Open the search page. In: a bundle, and images or an index. Out: a page at 127.0.0.1.

    python -m demo --images ~/Pictures
    python -m demo --index index/holiday-1a2b3c4d

`--images` makes or updates the folder's index in the cache; `--index` opens an index and leaves it unchanged. Exit
status: 0 if the user stops it, 2 for wrong input.
"""

import argparse
import atexit
import contextlib
import errno
import importlib
import io
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.errors import MiniClipError
from miniclip.inference.bundle_location import released_bundle
from miniclip.inference.precision import PRECISION_CHOICES
from miniclip.installation import install, program

from .loopback import is_loopback
from .memory import limit_memory_pools
from .show_in_folder import has_desktop

HOST = "127.0.0.1"


def parser() -> ArgumentParser:
    call = program("demo")
    flags = ArgumentParser(
        prog=call,
        description="Search images with words, in the browser. miniclip demo FOLDER is short for --images FOLDER.",
        example=f"{call} --images ~/Pictures",
    )
    flags.add_argument(
        "--bundle",
        type=Path,
        help="bundle: a folder, or USER/NAME on the hub (default miniclip-s, or the index's own)",
    )
    images = flags.add_mutually_exclusive_group()
    images.add_argument("--images", help="folder of images, caption file, hf:USER/NAME, or openmoji")
    images.add_argument("--index", type=Path, help="an index that miniclip index made")
    flags.add_argument("--share", action="store_true", help="also open a public link; it needs a login")
    flags.add_argument("--auth", type=_login, metavar="USER:PASSWORD", help="require this login")
    flags.add_argument(
        "--host",
        default=HOST,
        help=f"address to listen at (default {HOST}); 0.0.0.0 lets others connect, with a login",
    )
    flags.add_argument("--port", type=_port, default=7860, help="port to listen at (default 7860)")
    flags.add_argument(
        "--root-path",
        type=_root_path,
        default=os.environ.get("GRADIO_ROOT_PATH", ""),
        metavar="PATH",
        help="path at which a reverse proxy serves the page, such as /clip",
    )
    flags.add_argument("--mcp", action="store_true", help="also serve the search as tools to MCP clients")
    flags.add_argument(
        "--provider",
        default="auto",
        help="auto | cuda | coreml | directml | cpu (default auto: the GPU if there is one)",
    )
    flags.add_argument("--precision", default="auto", help=f"{PRECISION_CHOICES} (default auto)")
    flags.add_argument("--no-browser", action="store_true", help="do not open the browser")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.images is None and arguments.index is None:
        raise MiniClipError("nothing to search; give --images DIR or --index INDEX")
    if arguments.images is not None and arguments.bundle is None:
        arguments.bundle = released_bundle()
    if arguments.mcp and find_spec("mcp") is None:
        raise MiniClipError(f"--mcp needs the package mcp: {install('mcp')}")
    check_port(arguments.host, arguments.port)
    limit_memory_pools()
    # importing Gradio and opening an index both take seconds: run them in parallel
    importing = threading.Thread(target=_import_page, daemon=True)
    importing.start()
    searcher = _open_searcher(arguments)
    importing.join()
    try:
        from .app import build_page, launch_options
        from .app_state import AppState
    except ImportError as error:
        raise MiniClipError(f"the page needs {error.name}: {install('demo')}") from error

    is_public = arguments.share or not is_loopback(arguments.host)
    app_state = AppState(searcher, arguments.provider, is_public, is_proxied=bool(arguments.root_path))
    if app_state.is_local:
        _recover_moves()
    login, is_generated = arguments.auth, False
    if is_public and login is None:
        login, is_generated = ("guest", token_urlsafe(9)), True  # 72 random bits
    _separate_uploads()
    bypass_proxies()
    page = build_page(app_state, arguments.mcp)
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host  # an IPv6 address, as in URLs
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Gradio prints its own address of the MCP server
            page.launch(
                server_name=host,
                server_port=arguments.port,
                root_path=arguments.root_path,
                auth=login,
                inbrowser=not (arguments.no_browser or is_public or arguments.root_path) and has_desktop(),
                prevent_thread_lock=True,
                **launch_options(app_state, arguments.mcp),
            )
    except OSError as error:  # another program took the port while the index was opened
        raise _port_in_use(arguments.port) from error
    address = f"http://{host}:{arguments.port}"
    print(app_state.search.status, flush=True)
    print(f"The search page is at {address} (stop it with Ctrl-C)", flush=True)
    if arguments.mcp:
        print(f"MCP clients connect to {address}{arguments.root_path}/gradio_api/mcp/", flush=True)
    if is_generated and login:
        print(f"login: {login[0]}, password: {login[1]}", flush=True)
    if arguments.share:
        print(share(page, arguments.host), flush=True)
    page.block_thread()
    return 0


def check_port(host: str, port: int) -> None:
    """Raise `MiniClipError` for an address that cannot be opened, before anything slow starts."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port is free as soon as its page has stopped
        try:
            probe.bind((host, port))
        except PermissionError as error:
            raise MiniClipError(f"port {port} needs more rights; choose one above 1023 with --port N") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _port_in_use(port) from error
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                wrong = f"--host must be an address of this machine, such as 0.0.0.0, got {host}"
                raise MiniClipError(wrong) from error
            raise MiniClipError(
                f"port {port} cannot be opened ({error.strerror}); choose another with --port N"
            ) from error


def _port_in_use(port: int) -> MiniClipError:
    return MiniClipError(f"port {port} is in use; stop the program that uses it, or choose another with --port N")


def _open_searcher(arguments: argparse.Namespace) -> Any:
    from miniclip.index.image_index import ImageIndex
    from miniclip.index.location import bring_up_to_date
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.bundle_location import find_bundle
    from miniclip.inference.onnx_encoders import OnnxEncoders
    from miniclip.search.searcher import Searcher

    if arguments.index is not None:
        return Searcher.open(arguments.index, arguments.bundle, arguments.provider, arguments.precision)
    encoders = OnnxEncoders(
        Bundle.open(find_bundle(arguments.bundle, arguments.precision)), arguments.provider, arguments.precision
    )
    print(encoders.running_on)
    folder = bring_up_to_date(arguments.images, encoders, partial(print, flush=True))
    encoders.warm_up()
    return Searcher(ImageIndex.open(folder), encoders)


def share(page: Any, host: str) -> str:
    """Open Gradio's tunnel to a running page. Returns one line: the public address, or why there is none.

    Gradio's `launch(share=True)` would make every browser, even a local one, load scripts from another server, and
    would print a page of advice if the tunnel fails.
    """
    from gradio import networking

    try:
        address = networking.setup_tunnel(host, page.server_port, page.share_token, None, None)
    except Exception as error:  # such as no network, a firewall or a damaged download
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        return f"no public link: {reason}; the page stays at http://{host}:{page.server_port}"
    return f"public link: {address} (for at most a week, as long as this runs)"


def bypass_proxies() -> None:
    """Let requests to this machine bypass HTTP proxies: when it starts, Gradio sends one to the page."""
    names = [name.strip() for kind in ("no_proxy", "NO_PROXY") for name in os.environ.get(kind, "").split(",")]
    if "*" not in names:
        hosts = ",".join(dict.fromkeys(filter(None, [*names, HOST, "localhost"])))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = hosts


def _separate_uploads() -> None:
    """Keep uploads in a temporary folder, which no other page uses and which is deleted at the end."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="miniclip-uploads-")
        os.environ["GRADIO_TEMP_DIR"] = folder.name
        atexit.register(folder.cleanup)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # runs `atexit`


def _recover_moves() -> None:
    """Repair moves of files that were interrupted when an earlier page was killed, and print what was repaired."""
    from miniclip.data.paths import printable
    from miniclip.index.relocate import recover

    with contextlib.suppress(MiniClipError, OSError):  # without a home folder there is no journal, and nothing to do
        for line in recover():
            print(f"an interrupted move was repaired: {printable(line)}", flush=True)


def _import_page() -> None:
    with contextlib.suppress(ImportError):  # the main thread imports it again and reports the error
        importlib.import_module(f"{__package__}.app")


def _port(text: str) -> int:
    port = int(text) if text.isdigit() else 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text}")
    return port


def _root_path(text: str) -> str:
    if text and not text.startswith(("/", "http://", "https://")):
        raise argparse.ArgumentTypeError(f"must begin with /, as in /clip, got {text}")
    return text.rstrip("/")


def _login(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise argparse.ArgumentTypeError("must be user:password, and neither may be empty")
    return user, password


if __name__ == "__main__":
    run_command(main)

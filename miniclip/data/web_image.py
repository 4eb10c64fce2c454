"""Fetch an image from a web address, with limits: 32 MB, 20 seconds, five redirects, and public addresses only.

In: an http or https address. Out: the bytes, or a `MiniClipError` with the reason. Each connection, also after a
redirect, uses the IP address that was checked, so a name that resolves differently the second time does no harm.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import urljoin, urlsplit

from miniclip.errors import MiniClipError

MAX_BYTES = 32 << 20
MAX_SECONDS = 20.0
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}


def is_web_address(text: str) -> bool:
    """Whether a text begins with http:// or https://."""
    return text.lower().startswith(("http://", "https://"))


def fetch_image(url: str) -> bytes:
    """The bytes at a web address; they are not checked to be an image.

    Errors: `MiniClipError` with the reason.
    """
    deadline = time.monotonic() + MAX_SECONDS
    address = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            status, location, content = _get(address, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            if time.monotonic() >= deadline:
                reason = f"took longer than {MAX_SECONDS:g} seconds"
            raise MiniClipError(f"cannot fetch {url} ({reason}); check the address") from error
        if status in REDIRECTS and location:
            address = urljoin(address, location)
        elif status == 200:
            return content
        else:
            raise MiniClipError(f"cannot fetch {url} (HTTP status {status}); check the address")
    raise MiniClipError(f"cannot fetch {url} (more than {MAX_REDIRECTS} redirects); give the image's own address")


def _get(url: str, deadline: float) -> tuple[int, str, bytes]:
    """Status, `Location` and content of one request."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("not an http or https address")
    port = parts.port or PORTS[parts.scheme]
    peer = _public_address(parts.hostname, port)
    raw = socket.create_connection(peer, timeout=_left(deadline))
    if parts.scheme == "https":
        context = ssl.create_default_context()
        raw = context.wrap_socket(raw, server_hostname=parts.hostname, do_handshake_on_connect=False)
    connection = http.client.HTTPConnection(parts.hostname, port)
    connection.sock = raw
    # a timeout of the socket starts again with each byte, so a slow server could take for ever
    timer = threading.Timer(_left(deadline), _shut_down, [raw])
    timer.start()
    try:
        if isinstance(raw, ssl.SSLSocket):
            raw.do_handshake()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": "miniclip", "Accept": "image/*"})
        answer = connection.getresponse()
        content = bytearray()
        while answer.status == 200 and (part := answer.read1(1 << 16)):
            content += part
            if len(content) > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES >> 20} MB")
        _left(deadline)  # after the timer, the content would seem to be complete
        return answer.status, answer.getheader("Location", ""), bytes(content)
    finally:
        timer.cancel()
        connection.close()


def _shut_down(connection: socket.socket) -> None:
    """End a connection that another thread is using. Its calls then fail or return no data."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # that of SSLSocket would not be safe in two threads


def _left(deadline: float) -> float:
    """The seconds until the deadline; `TimeoutError` if it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _public_address(host: str, port: int) -> tuple[str, int]:
    """The IP address and port to connect to; `ValueError` if one of the host's addresses is not public."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_global or address.is_multicast:
            raise ValueError(f"{host} is an inner address, which is never fetched")
    return found[0], port

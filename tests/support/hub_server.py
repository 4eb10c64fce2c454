"""A small local server with the part of the hub's API that models need: create, commit, list, download.

Repositories are files in memory. Large ones are redirected to a storage address, as LFS files are.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".onnx", "_data", ".pt", ".safetensors")  # the hub stores these as LFS files
REPOSITORY = r"([\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """`commits` maps a commit to its files; `branches` maps a name to a commit.

    A gated repository has a `token`, which its readers need; only the server's owner may read a private one.
    `is_listed`: without the token, only files are refused, as on the hub for models that ask for consent.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    is_listed: bool = False
    private: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the main branch."""
        return self.commits.get(self.branches.get("main", ""), {})

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Put a new state on a branch; returns its commit."""
        name = hashlib.sha1(b"".join(k.encode() + v for k, v in files.items())).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name


class HubServer(ThreadingHTTPServer):
    """The token `owner` may write. `damaged` files arrive with one changed byte, and `cut` files end early."""

    def __init__(self, owner: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.owner = owner
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.damaged: set[str] = set()
        self.cut: set[str] = set()
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def fetched(self) -> set[str]:
        """Names of the files whose content was requested."""
        return {
            request.split("/", 7)[-1] for request in self.requests if re.match("GET /[^/]+/[^/]+/resolve/", request)
        }

    def add(self, name: str, files: dict[str, bytes], token: str | None = None, is_listed: bool = False) -> Repository:
        """Add a repository."""
        repository = self.repositories[name] = Repository(token=token, is_listed=is_listed)
        repository.commit(files)
        return repository

    def start(self) -> "HubServer":
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the server, and connections that clients keep open."""
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # already closed
                connection.shutdown(socket.SHUT_RDWR)


class Answers(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def answer(self, content: bytes | dict[str, Any] | list[Any], status: int = 200, **headers: str) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if storage := re.fullmatch(rf"/storage/{REPOSITORY}/(\w+)/(.+)", path):
            return self.send_file(self.server.repositories[storage[1]].commits[storage[2]][storage[3]], storage[3])
        found = re.fullmatch(rf"(?:/api/models)?/{REPOSITORY}(?:/(revision|tree|resolve)/([^/]+))?(?:/(.+))?", path)
        repository = self.server.repositories.get(found[1]) if found else None
        if found is None or repository is None or (repository.private and not self.is_owner()):
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        is_open = repository.token is None or (repository.is_listed and found[2] != "resolve")
        if not is_open and self.headers.get("Authorization") != f"Bearer {repository.token}":
            return self.answer({"error": "Access is restricted"}, 401, X_Error_Code="GatedRepo")
        commit = repository.branches.get(found[3] or "main", found[3])
        files = repository.commits.get(commit)
        if files is None:
            return self.answer({"error": "Revision not found"}, 404, X_Error_Code="RevisionNotFound")
        if found[2] == "resolve":
            return self.resolve(found[1], commit, found[4], files)
        if found[2] == "tree":
            return self.answer([_entry(name, content) for name, content in files.items()])
        siblings = [{"rfilename": name} for name in files]
        self.answer({"id": found[1], "sha": commit, "private": repository.private, "siblings": siblings})

    def do_HEAD(self) -> None:
        self.do_GET()

    def is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server.owner}"

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not self.is_owner():
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        found = re.fullmatch(rf"/api/models/{REPOSITORY}/(preupload|commit)/main", self.path)
        if found is None:
            return self.answer({}, 404)
        if found[2] == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in asked]
            return self.answer({"files": modes})
        self.commit(found[1], [json.loads(line) for line in body.splitlines()])

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        is_new = name not in self.server.repositories
        if is_new:
            repository = self.server.add(name, {})
            repository.private = wanted.get("visibility") == "private" or wanted.get("private", False)
        self.answer({"url": f"{self.server.address}/{name}"}, 200 if is_new else 409)

    def commit(self, name: str, items: list[dict[str, Any]]) -> None:
        repository = self.server.repositories[name]
        files = [item["value"] for item in items if item["key"] == "file"]
        new = {file["path"]: base64.b64decode(file["content"]) for file in files}
        commit = repository.commit({**repository.files, **new})
        url = f"{self.server.address}/{name}/commit/{commit}"
        self.answer({"success": True, "commitOid": commit, "commitUrl": url})

    def resolve(self, name: str, commit: str, file: str, files: dict[str, bytes]) -> None:
        content = files.get(file)
        if content is None:
            return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        if not file.endswith(LARGE):
            self.send_file(content, file, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=commit)
            return None
        self.answer(
            b"",
            302,
            # another host, like the hub's storage: only then does the client read the headers of the first answer
            Location=f"http://localhost:{self.server.server_port}/storage/{name}/{commit}/{file}",
            X_Repo_Commit=commit,
            X_Linked_Etag=f'"{hashlib.sha256(content).hexdigest()}"',
            X_Linked_Size=str(len(content)),
        )

    def send_file(self, content: bytes, file: str, **headers: str) -> None:
        if file in self.server.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        if file not in self.server.cut or self.command == "HEAD":
            return self.answer(content, **headers)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def use_hub(monkeypatch: pytest.MonkeyPatch, server: HubServer, cache: Path) -> None:
    """This process uses the server instead of the hub, with this `cache`, as with HF_ENDPOINT and HF_HOME.

    huggingface_hub reads the environment only when it is imported.
    """
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "*")
    values = {
        "ENDPOINT": server.address,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    values["HUGGINGFACE_CO_URL_TEMPLATE"] = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    huggingface_hub.close_session()  # the next one reads NO_PROXY


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, in the form of a repository."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }

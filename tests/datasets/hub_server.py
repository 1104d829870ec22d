"""A server on 127.0.0.1 that speaks the part of the hub's protocol that a download uses, and can misbehave."""

import hashlib
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
LARGE = {".zip", ".safetensors", ".parquet"}  # as git LFS keeps them on the hub: served by another host
PIECE = 16 * 1024  # bytes of a body that are sent at a time


@dataclass
class Fault:
    """What goes wrong with one answer: a status instead of it, or something with its body."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body, after which the connection is closed
    hold_after: int | None = (
        None  # bytes of the body, after which nothing comes until `HubServer.go_on` is set
    )
    wrong_bytes: bool = False
    ignore_range: bool = False
    body: bytes | None = None  # instead of the right one


@dataclass
class Repository:
    kind: str
    commit: str
    contents: dict[str, bytes]
    stated: dict[str, dict] = field(default_factory=dict)  # what the listing says instead of the truth

    def listing(self) -> dict:
        siblings = [
            self._entry(name, data) | self.stated.get(name, {}) for name, data in self.contents.items()
        ]
        return {"id": "of/test", "sha": self.commit, "siblings": siblings}

    def tree(self) -> list[dict]:
        """The same in the words of the answer that `snapshot_download` asks for."""
        return [
            {"type": "file", "path": entry["rfilename"], "size": entry["size"], "oid": entry["blobId"]}
            | ({"lfs": {**entry["lfs"], "oid": entry["lfs"]["sha256"]}} if "lfs" in entry else {})
            for entry in self.listing()["siblings"]
        ]

    def _entry(self, name: str, data: bytes) -> dict:
        entry = {"rfilename": name, "size": len(data), "blobId": git_blob_id(data)}
        if is_large(name):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
        return entry


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(name: str) -> bool:
    return PurePosixPath(name).suffix in LARGE


class HubServer:
    """Serves `repositories` while it is entered; `sent` counts the bytes of each file that left it."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, Iterator[Fault]] = {}
        self.sent: Counter[str] = Counter()
        self.tokens: dict[str, set[str | None]] = defaultdict(set)  # what came as authorization, by host
        self.go_on = threading.Event()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, home: Path) -> dict[str, str]:
        """For a process that has no hub but this one, and its cache below `home`."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return others | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(ROOT),
        }

    def add(self, kind: str, name: str, contents: dict[str, bytes]) -> Repository:
        commit = hashlib.sha1(repr((kind, name, contents)).encode()).hexdigest()
        self.repositories[name] = Repository(kind, commit, contents)
        return self.repositories[name]

    def misbehave(self, what: str, faults: Iterable[Fault]) -> None:
        """Answer the next requests for `what`, a file's name or "listing", with `faults`, then as is right."""
        self.faults[what] = iter(faults)

    def start(self) -> None:
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", self.port), type("Handler", (_Handler,), {"hub": self})
        )
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "HubServer":
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.tokens[self.headers["Host"].split(":")[0]].add(self.headers["Authorization"])
        for name, repository in self.hub.repositories.items():
            prefix = f"/{repository.kind}s/{name}" if repository.kind == "dataset" else f"/{name}"
            if path.startswith(f"/api/{repository.kind}s/{name}/revision/"):
                return self._list(repository, path.rsplit("/", 1)[1])
            if path == f"/api/{repository.kind}s/{name}/tree/{repository.commit}":
                return self._send_json(repository.tree())
            for place in (f"{prefix}/resolve/{repository.commit}/", f"/cdn/{name}/"):
                if path.startswith(place):
                    return self._file(name, repository, path.removeprefix(place), at_cdn="cdn" in place)
        self._refuse(404, {"X-Error-Code": "RepoNotFound"})

    def _list(self, repository: Repository, revision: str) -> None:
        fault = self._fault("listing")
        if fault.status:
            return self._refuse(fault.status, fault.headers)
        if revision not in ("main", repository.commit):
            return self._refuse(404, {"X-Error-Code": "RevisionNotFound"})
        self._send_json(repository.listing() if fault.body is None else fault.body)

    def _file(self, name: str, repository: Repository, file: str, at_cdn: bool) -> None:
        """A small file itself; of a large one its headers, and a redirect to where its body is."""
        if file not in repository.contents:
            return self._refuse(404, {"X-Error-Code": "EntryNotFound"})
        data = repository.contents[file]
        if is_large(file) and not at_cdn:
            digest = hashlib.sha256(data).hexdigest()
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            place = f"http://localhost:{self.hub.port}/cdn/{name}/{file}?Signature=of-the-hub"
            return self._begin(302, {"X-Repo-Commit": repository.commit, "Location": place, **linked}, 0)
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{git_blob_id(data)}"'}
        if self.command == "HEAD":
            return self._begin(200, headers, len(data))
        fault = self._fault(file)
        if fault.status:
            return self._refuse(fault.status, fault.headers)
        self._body(file, data, headers, fault)

    def _body(self, file: str, data: bytes, headers: dict[str, str], fault: Fault) -> None:
        data = fault.body if fault.body is not None else data[::-1] if fault.wrong_bytes else data
        asked, start, status = self.headers.get("Range"), 0, 200
        if asked and not fault.ignore_range:
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            if start >= len(data):
                return self._refuse(416, {"Content-Range": f"bytes */{len(data)}"})
        self._begin(status, headers, len(data) - start)
        end = len(data) if fault.cut_after is None else start + fault.cut_after
        held = None if fault.hold_after is None else start + fault.hold_after
        position = start
        while position < end:
            if position == held:
                self.wfile.flush()
                self.hub.go_on.wait()
            until = min(end, position + PIECE, held if held and held > position else end)
            try:
                self.wfile.write(data[position:until])
            except ConnectionError:
                return
            self.hub.sent[file] += until - position
            position = until
        self.close_connection = self.close_connection or fault.cut_after is not None

    def _fault(self, what: str) -> Fault:
        return next(self.hub.faults.get(what, iter(())), Fault())

    def _send_json(self, content: object) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._begin(200, {"Content-Type": "application/json"}, len(body))
        self.wfile.write(body)

    def _begin(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        """Say no, and tell the client its own token, as no server should."""
        body = b"" if self.command == "HEAD" else f"refused to {self.headers['Authorization']}".encode()
        self._begin(status, headers, len(body))
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

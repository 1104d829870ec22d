"""A server on 127.0.0.1 that speaks the part of the hub's protocol by which a folder is uploaded, without Xet."""

import base64
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LARGE = 2_000  # bytes from which a file is kept by LFS


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


class ReceivingHub:
    """Takes uploads with `token` while it is entered.

    `objects` is the large storage, by SHA-256; `sent` counts the bytes that came for each of its objects. A file whose
    SHA-256 is among `broken` is cut off when it has come; with `status`, every commit is answered by it. What is larger than
    `part` bytes is sent in parts of this size.
    """

    def __init__(self, token: str):
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.sent: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.status: int | None = None
        self.part = 40_000
        self.asked: list[tuple[str, str]] = []
        self.received = b""  # every body

    def __enter__(self) -> "ReceivingHub":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ReceivingHub

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        """A part of an object, or all of it; its address is its permission, as with a signed one."""
        _, oid, part = urlsplit(self.path).path.strip("/").split("/")
        body = self._body()
        self.hub.sent[oid] += len(body)
        if oid in self.hub.broken:
            self.close_connection = True
            return self.connection.close()
        self.hub.parts.setdefault(oid, {})[int(part)] = body
        if part == "0":
            self._store(oid)
        self._say(200, {}, {"ETag": f'"{part}"'})

    def _answer(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        self.hub.asked.append((self.command, path))
        self.hub.received += body
        if path.startswith("/lfs/"):  # all parts of an object have come
            self._store(path.split("/")[2])
            return self._say(200, {})
        if self.headers["Authorization"] != f"Bearer {self.hub.token}":
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self._say(401, {"error": f"no {self.headers['Authorization']}"}, message)
        if path == "/api/validate-yaml":
            return self._say(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        name = path.removeprefix("/api/models").strip("/")
        name = "/".join(name.split("/")[:2]).removesuffix(".git")
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._say(404, {}, {"X-Error-Code": "RepoNotFound"})
        if self.command == "GET":
            return self._say(
                200, {"id": name, "private": repository.private, "sha": "0" * 40, "siblings": []}
            )
        if "/preupload/" in path:
            return self._say(200, {"files": [_mode(file) for file in json.loads(body)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            return self._say(
                200, {"objects": [self._actions(**entry) for entry in json.loads(body)["objects"]]}
            )
        if self.hub.status:
            return self._say(self.hub.status, {"error": f"no {self.headers['Authorization']}"})
        self._commit(name, repository, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
        self._say(status, {"url": f"{self.hub.endpoint}/{name}"})

    def _actions(self, oid: str, size: int) -> dict:
        """Where the object goes; nothing where it is here already."""
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        place = f"{self.hub.endpoint}/lfs/{oid}"
        if size <= self.hub.part:
            return {"oid": oid, "size": size, "actions": {"upload": {"href": f"{place}/0"}}}
        parts = {str(part): f"{place}/{part}" for part in range(1, -(-size // self.hub.part) + 1)}
        upload = {"href": f"{place}/whole", "header": {"chunk_size": str(self.hub.part), **parts}}
        return {"oid": oid, "size": size, "actions": {"upload": upload}}

    def _store(self, oid: str) -> None:
        data = b"".join(part for _, part in sorted(self.hub.parts[oid].items()))
        assert hashlib.sha256(data).hexdigest() == oid
        self.hub.objects[oid] = data

    def _commit(self, name: str, repository: Repository, lines: list[dict]) -> None:
        for line in lines:
            told = line["value"]
            if line["key"] == "file":
                repository.files[told["path"]] = base64.b64decode(told["content"])
            elif line["key"] == "lfsFile":
                repository.files[told["path"]] = self.hub.objects[told["oid"]]
        url = f"{self.hub.endpoint}/{name}/commit/{'1' * 40}"
        self._say(200, {"commitUrl": url, "commitOid": "1" * 40})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _say(self, status: int, content: dict, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for header in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _mode(file: dict) -> dict:
    mode = "lfs" if file["size"] >= LARGE else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

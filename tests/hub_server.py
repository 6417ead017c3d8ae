"""A stand-in for the Hugging Face Hub on loopback, to which the real client library talks.

    with hub_server.serve() as hub:
        commit = hub.commit("datasets", "owner/name", {"train.jsonl": b"..."})
        ...                                 # run something with env HF_ENDPOINT=hub.endpoint

Models are served in the same way (`hub.commit("models", ...)`), and written by who has its token.
Files that end in LFS suffixes are redirected to another host name, as the real hub does; faults are
queued with `hub.fail`. What is in `hub.files` is served as plain files, with and
(`hub.ranges = False`) without range requests.
"""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_uploads import Uploads

LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".gz", ".zst", ".model")


@dataclass
class Repository:
    """All commits of a repository, and who may read it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


@dataclass
class Fault:
    """What to answer instead, `times` times: a status, or a connection cut after `cut_at` bytes."""

    pattern: str
    method: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    reset: bool = False


class Hub(ThreadingHTTPServer):
    """The server: `log` lists (method, path, request headers) in order of arrival."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str, dict[str, str]]] = []
        self.uploaded: dict[str, bytes] = {}  # sha256 -> a large file that no commit names yet
        self.messages: list[str] = []  # of the commits that were pushed
        self.lock = threading.Lock()
        self.token = "hf_this_is_the_secret_of_the_test"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, kind: str, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit with these files to a branch; returns its 40 digits."""
        repository = self.repositories.setdefault((kind, name), Repository())
        content = repr((name, len(repository.commits), sorted(files.items()))).encode()
        sha = hashlib.sha1(content).hexdigest()
        repository.commits[sha] = dict(files)
        repository.branches[branch] = sha
        return sha

    def fail(self, pattern: str, method: str = "GET", times: int = 1, **what: object) -> None:
        """Queue a fault for requests whose path matches; see Fault."""
        self.faults.append(Fault(pattern, method, times, **what))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def requested(self, pattern: str, method: str = "GET") -> list[dict[str, str]]:
        """The headers (names in lower case) of each request of that method whose path matches."""
        return [h for m, path, h in self.log if m == method and re.search(pattern, path)]


class Handler(Uploads, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self.do_POST()

    def answer(self, body: bytes = b"") -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.log.append((self.command, path, headers))
        self.fault = self.server.take_fault(self.command, path)
        if self.fault and self.fault.status:
            return self.send(self.fault.status, b"a planned fault", self.fault.headers)
        if self.command in ("POST", "PUT") and self.answer_upload(path, body):
            return None
        if path in self.server.files:
            digest = hashlib.md5(self.server.files[path]).hexdigest()
            when = "Sun, 01 Jan 2023 00:00:00 GMT"
            headers = {"ETag": f'"{digest}"', "Last-Modified": when}
            return self.send_blob(self.server.files[path], headers)
        if cdn := re.fullmatch(r"/cdn/(\w{64})", path):
            return self.send_blob(self.find_blob(cdn[1]), {"ETag": f'"{cdn[1]}"'})
        if api := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(.+))?", path):
            return self.answer_api(api[1], api[2], api[3] or "", parse_qs(url.query), body)
        if file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.answer_file("datasets" if file[1] else "models", *file.groups()[1:])
        return self.error(404, "RepoNotFound")

    def find(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files; or None, when an error was sent."""
        repository = self.server.repositories.get((kind, name))
        allowed = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if self.headers.get("Authorization") and not allowed:
            return self.send(
                401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        if repository is None or (repository.private and not allowed):
            return self.error(401, "RepoNotFound")
        guarded = "/resolve/" in self.path or self.path.endswith("/auth-check")
        if repository.gated and not allowed and guarded:
            return self.error(403, "GatedRepo")
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            return self.error(404, "RevisionNotFound")
        return sha, repository.commits[sha]

    def answer_api(self, kind: str, name: str, rest: str, query: dict, body: bytes) -> None:
        verb, _, where = rest.partition("/")
        revision, _, under = where.partition("/")
        found = self.find(kind, name, revision or "main")
        if found is None:
            return
        sha, files = found
        if verb in ("", "revision"):
            siblings = [sibling(path, data, "blobs" in query) for path, data in files.items()]
            info = {"id": name, "sha": sha, "siblings": siblings, "private": False, "tags": []}
            gated = "auto" if self.server.repositories[kind, name].gated else False
            return self.send_json({**info, "gated": gated, "downloads": 0, "likes": 0})
        if verb == "auth-check":
            return self.send_json({})
        entries = tree(files)
        if verb == "paths-info":
            asked = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get(
                "paths", []
            )
            return self.send_json([entry for entry in entries if entry["path"] in asked])
        if verb == "tree":
            inside = [e for e in entries if not under or e["path"].startswith(f"{under}/")]
            deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            depth = under.count("/") + bool(under)
            return self.send_json([e for e in inside if deep or e["path"].count("/") == depth])
        return self.error(404, "EntryNotFound")

    def answer_file(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self.find(kind, name, revision)
        if found is None:
            return None
        sha, files = found
        if path not in files:
            return self.error(404, "EntryNotFound", {"X-Repo-Commit": sha})
        data, headers = files[path], {"X-Repo-Commit": sha}
        if not path.endswith(LFS_SUFFIXES):
            return self.send_blob(data, {**headers, "ETag": f'"{git_sha1(data)}"'})
        digest = hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
        # Another host name, as with the real hub's CDN: the client must not take its token there.
        cdn = f"http://localhost:{self.server.server_port}/cdn/{digest}"
        return self.send(302, b"", {**headers, **linked, "Location": cdn})

    def find_blob(self, digest: str) -> bytes:
        for repository in self.server.repositories.values():
            for files in repository.commits.values():
                for data in files.values():
                    if hashlib.sha256(data).hexdigest() == digest:
                        return data
        raise KeyError(digest)

    def send_blob(self, data: bytes, headers: dict[str, str]) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span or not self.server.ranges:
            return self.send(200, data, {"Accept-Ranges": "bytes", **headers})
        start, end = int(span[1]), min(int(span[2] or len(data) - 1), len(data) - 1)
        if start >= len(data):
            return self.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        where = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return self.send(206, data[start : end + 1], {**headers, **where})

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self.fault
        if fault and fault.cut_at is not None:
            self.wfile.write(data[: fault.cut_at])
            self.wfile.flush()
            if fault.reset:  # RST instead of FIN
                linger = b"\1\0\0\0\0\0\0\0"
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_WR) if not fault.reset else self.connection.close()
            return
        self.wfile.write(data)


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sibling(path: str, data: bytes, with_blobs: bool) -> dict:
    entry = {"rfilename": path}
    if with_blobs:
        entry |= {"size": len(data), "blobId": git_sha1(data)}
    if with_blobs and path.endswith(LFS_SUFFIXES):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
    return entry


def tree(files: dict[str, bytes]) -> list[dict]:
    folders = {"/".join(p.split("/")[:i]) for p in files for i in range(1, p.count("/") + 1)}
    entries = [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in folders]
    for path, data in files.items():
        entry = {"type": "file", "path": path, "oid": git_sha1(data), "size": len(data)}
        if path.endswith(LFS_SUFFIXES):
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
        entries.append(entry)
    return sorted(entries, key=lambda entry: entry["path"])


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that serves until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()

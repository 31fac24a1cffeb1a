"""A real HTTP server on loopback that speaks the hub's protocol, well or badly: as much of it as the clients ask for.

As on the real hub, a branch is resolved to a commit, listings come in pages, and large files lie on another host.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

from tests.loopback import serving

ROOT = Path(__file__).resolve().parents[1]
Files = Mapping[str, bytes]
Fault = Literal["500", "html", "truncated", "flipped"]
LARGE = (".parquet", ".zip", ".safetensors", ".bin", "_with_image.jsonl")
PAGE = 3
UPLOAD = re.compile(r"/api/(dataset|model)s/([^/]+/[^/]+)/(preupload|commit)/main")
LFS = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")
API = re.compile(
    r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?"
)
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
BLOB = re.compile(r"/blobs/([0-9a-f]{64})")


class Reply(NamedTuple):
    """Status, headers and body; a body that is a file's content can be asked for in ranges."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    is_file: bool = False


def commit_of(files: Files) -> str:
    """The commit that the hub gives to these files."""
    return hashlib.sha1(
        repr(sorted((path, _git_id(content)) for path, content in files.items())).encode()
    ).hexdigest()


class Hub:
    """Repositories by ("dataset" or "model", "owner/name"). `fault` makes it misbehave; `requests`
    logs what came."""

    def __init__(self, repositories: Mapping[tuple[str, str], Files]) -> None:
        self.repositories = dict(repositories)
        self.fault: Fault | None = None
        self.pinned: set[str] = set()  # commits that it has beside the newest, with the same files
        self.requests: list[str] = []
        self.refused: set[str] = set()  # owners for whom nobody may write
        self.visibility: dict[str, str] = {}  # of repositories that clients made
        self._blobs: dict[str, bytes] = {}  # large files that came, by sha256
        self.port = 0

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def reply(self, method: str, target: str, form: bytes) -> Reply:
        """The answer to one request."""
        path = unquote(urlsplit(target).path)
        if path == "/api/repos/create":
            return self._create(json.loads(form))
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if match := UPLOAD.fullmatch(path):
            return self._upload(*match.groups(), form)
        if match := LFS.fullmatch(path):
            return self._lfs(json.loads(form)["objects"])
        if method == "PUT":
            self._blobs[_sha256(form)] = form
            return Reply(200, {})
        self.requests.append(f"{method} {unquote(target)}")
        if self.fault == "500":
            return Reply(500, {}, b"Internal Server Error")
        if self.fault == "html":
            return Reply(
                200,
                {"Content-Type": "text/html"},
                b"<html><body>Please log in to this network</body></html>",
            )
        url = urlsplit(target)
        path, query = unquote(url.path), parse_qs(url.query)
        if match := API.fullmatch(path):
            kind, name, what, revision, inside = match.groups()
            files = self._files(kind, name, revision)
            if isinstance(files, Reply):
                return files
            if what == "tree":
                return self._tree(files, inside or "", query, url.path)
            if what == "paths-info":
                entries = {entry["path"]: entry for entry in _entries(files)}
                return _json(
                    [
                        entries[requested]
                        for requested in parse_qs(form.decode())["paths"]
                        if requested in entries
                    ]
                )
            siblings: list[dict[str, Any]] = [{"rfilename": file} for file in sorted(files)]
            if query.get("blobs"):
                for sibling in siblings:
                    sibling["size"] = len(files[sibling["rfilename"]])
            return _json(
                {
                    "id": name,
                    "sha": commit_of(files),
                    "private": False,
                    "tags": _tags(files),
                    "siblings": siblings,
                }
            )
        if match := FILE.fullmatch(path):
            kind, name, revision, inside = match.groups()
            files = self._files("dataset" if kind else "model", name, revision)
            return files if isinstance(files, Reply) else self._file(files, inside)
        if match := BLOB.fullmatch(path):
            contents = (
                content for files in self.repositories.values() for content in files.values()
            )
            content = next(content for content in contents if _sha256(content) == match[1])
            if self.fault == "truncated":
                content = content[: len(content) // 2]
            elif self.fault == "flipped":
                content = content[:-1] + bytes([content[-1] ^ 1])
            return Reply(200, {}, content, is_file=True)
        return _missing("EntryNotFound")

    def _create(self, asked: dict[str, Any]) -> Reply:
        """A new repository, with the file that the hub puts into each."""
        name = f"{asked['organization']}/{asked['name']}"
        kind = asked["type"]
        url = f"{self.url}/{kind}s/{name}"
        if (kind, name) in self.repositories:
            return _json({"error": "You already created this dataset repo", "url": url}, status=409)
        if asked["organization"] in self.refused:
            return _json({"error": "Forbidden: you cannot write here"}, status=403)
        self.repositories[kind, name] = {".gitattributes": b""}
        self.visibility[name] = asked["visibility"]
        return _json({"url": url})

    def _upload(self, kind: str, name: str, what: str, form: bytes) -> Reply:
        if (kind, name) not in self.repositories:
            return _missing("RepoNotFound")
        if what == "preupload":
            modes = []
            for file in json.loads(form)["files"]:
                mode = "lfs" if file["path"].endswith(LARGE) else "regular"
                modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            return _json({"files": modes})
        files = dict(self.repositories[kind, name])
        for line in form.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self._blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        self.repositories[kind, name] = files
        commit = commit_of(files)
        url = f"{self.url}/{kind}s/{name}/commit/{commit}"
        return _json({"commitUrl": url, "commitOid": commit, "success": True})

    def _lfs(self, objects: list[dict[str, Any]]) -> Reply:
        """Where each large file goes: to another host, as on the real hub."""
        for item in objects:
            href = f"http://localhost:{self.port}/upload/{item['oid']}"
            item["actions"] = {"upload": {"href": href}}
        return _json({"transfer": "basic", "objects": objects})

    def _files(self, kind: str, name: str, revision: str | None) -> Files | Reply:
        if (kind, name) not in self.repositories:
            return _missing("RepoNotFound")
        files = self.repositories[kind, name]
        is_there = revision in (None, "main", commit_of(files), *self.pinned)
        return files if is_there else _missing("RevisionNotFound")

    def _tree(self, files: Files, inside: str, query: dict[str, list[str]], path: str) -> Reply:
        entries = [
            entry
            for entry in _entries(files)
            if entry["path"].startswith(f"{inside}/" if inside else "")
        ]
        if query.get("recursive") != ["true"]:
            entries = [
                entry
                for entry in entries
                if str(PurePosixPath(entry["path"]).parent) == (inside or ".")
            ]
        if not entries:
            return _missing("EntryNotFound", commit_of(files))
        start = int(query.get("cursor", ["0"])[0])
        options = "&".join(f"{key}={values[0]}" for key, values in query.items() if key != "cursor")
        following = f'<{self.url}{path}?{options}&cursor={start + PAGE}>; rel="next"'
        return _json(
            entries[start : start + PAGE],
            {"Link": following} if start + PAGE < len(entries) else {},
        )

    def _file(self, files: Files, path: str) -> Reply:
        commit = commit_of(files)
        if path not in files:
            return _missing("EntryNotFound", commit)
        content, headers = files[path], {"X-Repo-Commit": commit}
        if not path.endswith(LARGE):
            return Reply(200, headers | {"ETag": f'"{_git_id(content)}"'}, content, is_file=True)
        digest = _sha256(content)
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return Reply(
            302, headers | linked | {"Location": f"http://localhost:{self.port}/blobs/{digest}"}
        )


@contextmanager
def client_of(hub: Hub, home: Path) -> Iterator[None]:
    """The client in this process asks `hub` and keeps what it gets in `home`, for a while.

    Its constants say what the environment says at the start of a process.
    """
    from datasets import config
    from huggingface_hub import close_session, constants

    template = hub.url + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(config, "HF_ENDPOINT", hub.url)
        patch.setattr(config, "HF_DATASETS_CACHE", home / "datasets")
        patch.setattr(config, "HF_HUB_OFFLINE", False)
        close_session()  # it was opened under other settings
        try:
            yield
        finally:
            close_session()


@contextmanager
def hub_server(repositories: Mapping[tuple[str, str], Files]) -> Iterator[Hub]:
    """Serves the repositories; nothing listens on the hub's port afterwards."""
    hub = Hub(repositories)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            form = _body(self)
            status, headers, body, is_file = hub.reply(self.command, self.path, form)
            requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if is_file and requested and body:
                first, last = int(requested[1]), min(int(requested[2] or len(body)), len(body) - 1)
                status = 206 if first <= last else 416
                headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
                body = body[first : last + 1]
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    with serving(Handler) as port:
        hub.port = port
        yield hub


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    """What came with a request, whole or in chunks."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _tags(files: Files) -> list[str]:
    """Those of the card, as the hub reads them."""
    card = files.get("README.md", b"").decode(errors="replace")
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    return (yaml.safe_load(front[1]) or {}).get("tags", []) if front else []


def _entries(files: Files) -> list[dict[str, Any]]:
    """A listing as the hub gives it: every folder and file, sorted by path."""
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders
    ]
    for path, content in files.items():
        entry = {"type": "file", "path": path, "oid": _git_id(content), "size": len(content)}
        lfs = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
        entries.append(entry | {"lfs": lfs} if path.endswith(LARGE) else entry)
    return sorted(entries, key=lambda entry: entry["path"])


def _json(value: Any, headers: dict[str, str] | None = None, status: int = 200) -> Reply:
    return Reply(
        status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()
    )


def _missing(code: str, commit: str | None = None) -> Reply:
    return _json(
        {"error": code}, {"X-Error-Code": code} | ({"X-Repo-Commit": commit} if commit else {}), 404
    )


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

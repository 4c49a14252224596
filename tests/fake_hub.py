"""A loopback HTTP server that speaks enough of the Hugging Face Hub API to load from and to push to.

A repository is a plain folder: `root/models/<user>/<name>/` or `root/datasets/<user>/<name>/`. What is there is served,
and what a client uploads is written there. A commit id is derived from a repository's present content: only the `main`
branch, the present id and the names given to `accept_revision` exist, so an id from before a change is not found.

The client libraries read HF_ENDPOINT when they are imported, so client code belongs in a process of its own:

    with FakeHub(tmp_path) as hub:
        hub.run("-c", "from huggingface_hub import snapshot_download as get; print(get('user/name'))")

Left out: pull requests, branches and tags, history, Xet storage, multipart uploads, Spaces, renamed repositories.
"""

import base64
import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".parquet", ".arrow", ".gz", ".zip", ".model", ".gguf"}
LFS_FROM_BYTES = 10 * 1024 * 1024
HOUSEKEEPING = {".git", ".cache"}
CHUNK = 1024 * 1024
KINDS = ("models", "datasets")
REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Request(NamedTuple):
    """One request as the server saw it; whether it carried a token is kept, the token is not."""

    method: str
    path: str
    has_token: bool


class Commit(NamedTuple):
    """One accepted commit: where it went, its message, and the paths that it added, replaced or deleted."""

    kind: str
    repo_id: str
    summary: str
    paths: tuple


class HubError(Exception):
    """An answer other than success, with the error headers by which the client library picks its exception."""

    def __init__(self, status, message, code=None, headers=None, body=None):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.body = {"error": message, **(body or {})}


def is_lfs(path, size, sample):
    """Whether the Hub would keep a file with this name, size and first bytes as a large file."""
    return Path(path).suffix in LFS_SUFFIXES or size >= LFS_FROM_BYTES or b"\0" in sample


@functools.lru_cache(maxsize=4096)
def _identify(path, size, _mtime_ns):
    """Object ids of a file: (git blob id, None), or for a large file (blob id of its pointer, sha256 of its content)."""
    with open(path, "rb") as file:
        large = is_lfs(path, size, file.read(512))
        file.seek(0)
        digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % size)
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    if not large:
        return digest.hexdigest(), None
    pointer = _pointer(digest.hexdigest(), size)
    return hashlib.sha1(b"blob %d\0%s" % (len(pointer), pointer)).hexdigest(), digest.hexdigest()


def _pointer(sha256, size):
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class Repo:
    """One repository folder: its files, their object ids, and the commit id that follows from them."""

    def __init__(self, kind, repo_id, folder):
        self.kind, self.repo_id, self.folder = kind, repo_id, folder

    def files(self):
        """Paths of the files in the repository, relative to its root, in order."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in found if not HOUSEKEEPING & set(path.parts))

    def locate(self, path):
        """The place of a repository path on disk; a path that would leave the repository is refused."""
        place = self.folder / path
        parts = Path(path).parts
        if not parts or Path(path).is_absolute() or ".." in parts or HOUSEKEEPING & set(parts):
            raise HubError(400, f"not a path inside a repository: {path}")
        return place

    def identify(self, path):
        """Size, git blob id and, for a large file, sha256 of one file."""
        place = self.locate(path)
        stat = place.stat()
        return (stat.st_size, *_identify(str(place), stat.st_size, stat.st_mtime_ns))

    def revision(self):
        """The commit id: 40 hexadecimal digits that change whenever a path or its content changes."""
        lines = [f"{self.kind}/{self.repo_id}"]
        for path in self.files():
            lines.append(f"{path} {self.identify(path)[1]}")
        return hashlib.sha1("\n".join(lines).encode()).hexdigest()

    def entry(self, path, expand=False):
        """One tree entry, a file or a folder, as the API lists it."""
        described = {"path": path}
        if self.locate(path).is_dir():
            described.update(type="directory", size=0, oid=hashlib.sha1(f"tree {path}".encode()).hexdigest())
        else:
            size, oid, sha256 = self.identify(path)
            described.update(type="file", size=size, oid=oid)
            if sha256:
                described["lfs"] = {"oid": sha256, "size": size, "pointerSize": len(_pointer(sha256, size))}
        if expand:
            date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.locate(path).stat().st_mtime))
            described["lastCommit"] = {"id": self.revision(), "title": "Update", "date": date}
        return described

    def tree(self, path, recursive, expand):
        """The entries below a folder of the repository: its own, or with `recursive` those of every depth."""
        prefix = f"{path}/" if path else ""
        below = [name[len(prefix) :] for name in self.files() if name.startswith(prefix)]
        if path and not below:
            raise HubError(404, f"{path} does not exist", "EntryNotFound", {"X-Repo-Commit": self.revision()})
        names = set()
        for name in below:
            parts = name.split("/")
            names.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1 if recursive else 2))
        return [self.entry(prefix + name, expand) for name in sorted(names)]

    def write(self, path, source):
        """Put bytes, or a copy of the file at a path, at a place in the repository."""
        place = self.locate(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".partial-", delete=False) as partial:
            if isinstance(source, bytes):
                partial.write(source)
            else:
                with open(source, "rb") as file:
                    shutil.copyfileobj(file, partial, CHUNK)
        os.chmod(partial.name, 0o644)
        os.replace(partial.name, place)

    def remove(self, path, folder):
        """Delete a file or a folder of the repository."""
        place = self.locate(path)
        if not (place.is_dir() if folder else place.is_file()):
            raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        shutil.rmtree(place) if folder else place.unlink()


class FakeHub:
    """Serves the repositories under `root` on a free loopback port for as long as the `with` block lasts.

    `fault` is what is wrong with it: None, a status that it answers with, "slow" (no answer until `woken` is set) or "cut"
    (it closes the connection in place of an answer). Further attributes: `url` of the server, `token` that it accepts, `user` who owns that token, `requests` seen and `commits`
    accepted so far.
    """

    def __init__(self, root, user="tester"):
        self.root, self.user = Path(root), user
        self.token = "hf_" + secrets.token_hex(17)
        self.fault, self.woken = None, threading.Event()
        self.requests, self.commits = [], []
        self.lock = threading.RLock()
        self._private, self._accepted = set(), {}

    def __enter__(self):
        self._scratch = tempfile.TemporaryDirectory(prefix="fake-hub-", ignore_cleanup_errors=True)
        self.objects = Path(self._scratch.name, "lfs")
        self.objects.mkdir()
        for kind in KINDS:
            (self.root / kind).mkdir(parents=True, exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception):
        self.woken.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._scratch.cleanup()

    def folder(self, kind, repo_id):
        """The folder of a repository ("models" or "datasets", "user/name"), whether it exists yet or not."""
        return self.root / kind / repo_id

    def revision(self, kind, repo_id):
        """The present commit id of a repository."""
        return self.repo(kind, repo_id).revision()

    def accept_revision(self, kind, repo_id, revision):
        """Serve the present content under one more revision name, such as a commit id that a configuration pins."""
        self._accepted.setdefault((kind, repo_id), set()).add(revision)

    def make_private(self, kind, repo_id):
        """Refuse a repository to requests that carry no token."""
        self._private.add((kind, repo_id))

    def is_private(self, kind, repo_id):
        """Whether a repository was made private, here or by the client that created it."""
        return (kind, repo_id) in self._private

    def environment(self, token=True):
        """Environment variables that point the client libraries here, with the accepted token or with none."""
        home, secret = Path(self._scratch.name, "home"), self.token if token else ""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_TOKEN": secret,
            "HUGGING_FACE_HUB_TOKEN": secret,
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_ENABLE_HF_TRANSFER": "0",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def run(self, *arguments, token=True, timeout=300, **options):
        """Run this Python with some arguments as a client of the server, its output kept and its exit status not checked.

        `options` are those of subprocess.run; variables in `env` come on top of this process's and of `environment`.
        """
        variables = {**os.environ, **self.environment(token), **options.pop("env", {})}
        command = [sys.executable, *map(str, arguments)]
        settings = {"capture_output": True, "text": True, **options}
        return subprocess.run(command, check=False, env=variables, timeout=timeout, **settings)

    def repo(self, kind, repo_id, has_token=True):
        """A repository as a client with or without a token may see it; the error names no difference, as on the Hub."""
        folder = self.folder(kind, repo_id)
        hidden = self.is_private(kind, repo_id) and not has_token
        if hidden or not REPO_ID.fullmatch(repo_id) or not folder.is_dir():
            if has_token:
                raise HubError(404, "Repository not found", "RepoNotFound")
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        return Repo(kind, repo_id, folder)

    def at(self, repo, revision):
        """The commit id that `revision` names: the present one, or one that `accept_revision` was given."""
        commit, accepted = repo.revision(), self._accepted.get((repo.kind, repo.repo_id), ())
        if revision in accepted:
            return revision
        if revision not in {"main", "HEAD", "refs/heads/main", commit}:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def create(self, kind, repo_id, private):
        """Make an empty repository and say where it is; one that exists is a conflict, as on the Hub."""
        if not REPO_ID.fullmatch(repo_id) or kind not in KINDS:
            raise HubError(400, f"cannot create {kind}/{repo_id}")
        created = {"url": f"{self.url}/{'' if kind == 'models' else kind + '/'}{repo_id}", "name": repo_id}
        folder = self.folder(kind, repo_id)
        if folder.exists():
            raise HubError(409, "You already created this repo", body=created)
        folder.mkdir(parents=True)
        if private:
            self.make_private(kind, repo_id)
        return created

    def commit(self, repo, operations):
        """Apply the operations of one commit to a repository and return its new commit id."""
        header = next((item["value"] for item in operations if item["key"] == "header"), {})
        if header.get("parentCommit") not in (None, repo.revision()):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        steps = [(item["key"], item["value"]) for item in operations if item["key"] != "header"]
        sources = [self._source(key, value) for key, value in steps]
        for (key, value), source in zip(steps, sources):
            if source is None:
                repo.remove(value["path"].rstrip("/"), key == "deletedFolder")
            else:
                repo.write(value["path"], source)
        paths = tuple(value["path"] for _, value in steps)
        self.commits.append(Commit(repo.kind, repo.repo_id, header.get("summary", ""), paths))
        return repo.revision()

    def _source(self, key, value):
        """What an operation writes: bytes sent with it, the path of an uploaded large file, or None to delete."""
        if key in ("deletedFile", "deletedFolder"):
            return None
        if key == "file":
            encoded = value.get("encoding") == "base64"
            return base64.b64decode(value["content"]) if encoded else value["content"].encode()
        if key == "lfsFile":
            stored = self.objects / value["oid"]
            if not re.fullmatch("[0-9a-f]{64}", value["oid"]) or not stored.is_file():
                raise HubError(422, f"large file {value['path']} was not uploaded before its commit")
            return stored
        raise HubError(400, f"unknown commit operation {key}")


REPO = r"/api/(models|datasets)/([^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", "_whoami"),
    ("POST", r"/api/repos/create", "_create"),
    ("POST", r"/api/validate-yaml", "_validate_yaml"),
    ("GET", REPO + r"(?:/revision/([^/]+))?", "_info"),
    ("GET", REPO + r"/tree/([^/]+)(?:/(.+))?", "_tree"),
    ("GET", REPO + r"/refs", "_refs"),
    ("POST", REPO + r"/paths-info/([^/]+)", "_paths_info"),
    ("POST", REPO + r"/preupload/([^/]+)", "_preupload"),
    ("POST", REPO + r"/commit/([^/]+)", "_commit"),
    ("POST", r"/(?:(datasets)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "_lfs_batch"),
    ("POST", r"/lfs/verify", "_lfs_verify"),
]
RESOLVE = r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)"


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection from the folders of a FakeHub."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, hub, *arguments):
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *_arguments):
        """Keep the requests out of the test output; `FakeHub.requests` has them."""

    def do_GET(self):
        self._answer(self._route)

    do_HEAD = do_POST = do_DELETE = do_GET

    def do_PUT(self):
        self._answer(self._lfs_put)

    def _answer(self, action):
        """Record the request, run what answers it, and turn an error into the reply that the client expects."""
        url = urlsplit(self.path)
        self.route, self.query = url.path, parse_qs(url.query)
        given = self.headers.get("Authorization", "")
        self.has_token = bool(given)
        self.hub.requests.append(Request(self.command, unquote(url.path), self.has_token))
        self.body = None
        try:
            if self.command != "PUT":
                self.body = b"".join(self._incoming())
                if given and given != f"Bearer {self.hub.token}":
                    raise HubError(401, "Invalid credentials in Authorization header")
            if self._is_well():
                action()
        except HubError as error:
            self._send(error.status, error.body, error.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except (LookupError, OSError, TypeError, ValueError) as error:
            self._send(500, {"error": f"the fake hub failed: {error!r}"})

    def _is_well(self):
        """Whether to answer as the Hub would; else the hub's fault is dealt with."""
        fault = self.hub.fault
        if isinstance(fault, int):
            raise HubError(fault, "a fault of the fake hub")
        if fault == "slow":
            self.hub.woken.wait(60)
        self.close_connection = self.close_connection or fault is not None
        return fault is None

    def _route(self):
        """Call the method that answers this address, and send what it returns as JSON."""
        if self.command in ("GET", "HEAD") and (match := re.fullmatch(RESOLVE, self.route)):
            return self._resolve(*map(_unquote, match.groups()))
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and method == self.command:
                with self.hub.lock:
                    answer = getattr(self, name)(*map(_unquote, match.groups()))
                return self._send(200, answer)
        if match := re.match(REPO, self.route):
            self.hub.repo(*map(_unquote, match.groups()), self.has_token)
            raise HubError(501, f"the fake hub has no {self.command} {self.route}")
        named = re.match(r"/api/(models|datasets|spaces)/|.*/resolve/", self.route)
        if named:
            raise HubError(404 if self.has_token else 401, "Repository not found", "RepoNotFound")
        raise HubError(404, "Not found")

    def _incoming(self):
        """The chunks of the request body, by its length or by chunked transfer encoding."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (chunk := self.rfile.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk

    def _send(self, status, answer=None, headers=None):
        """Reply with a JSON body; the body is left out of the reply to HEAD."""
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _need_token(self):
        if not self.has_token:
            raise HubError(401, "Invalid username or password.")

    def _flag(self, name):
        return self.query.get(name, ["False"])[0].lower() in ("true", "1")

    def _repo(self, kind, repo_id):
        return self.hub.repo(kind or "models", repo_id, self.has_token)

    def _resolve(self, kind, repo_id, revision, path):
        """Send a file of a repository, whole or the range asked for, with the headers that describe it."""
        with self.hub.lock:
            repo = self._repo(kind, repo_id)
            headers = {"X-Repo-Commit": self.hub.at(repo, revision)}
            if not repo.locate(path).is_file():
                raise HubError(404, "Entry not found", "EntryNotFound", headers)
            size, oid, sha256 = repo.identify(path)
        if sha256:
            headers.update({"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(size)})
        headers["ETag"] = f'"{sha256 or oid}"'
        with open(repo.locate(path), "rb") as file:
            self._send_file(file, size, headers)

    def _send_file(self, file, size, headers):
        first, last = self._range(size)
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        fixed = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        for name, value in {**fixed, **headers, "Content-Length": str(last - first + 1)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        file.seek(first)
        left = last - first + 1
        while left > 0 and (chunk := file.read(min(left, CHUNK))):
            left -= len(chunk)
            self.wfile.write(chunk)

    def _range(self, size):
        """First and last byte to send: those of the Range header, or the whole file."""
        if "Range" not in self.headers:
            return 0, size - 1
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"].strip())
        start, end = match.groups() if match else ("", "")
        first = int(start) if start else max(size - int(end or 0), 0)
        last = min(int(end), size - 1) if start and end else size - 1
        if first > last:
            raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
        return first, last

    def _whoami(self):
        self._need_token()
        access = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return {"type": "user", "id": "0", "name": self.hub.user, "fullname": self.hub.user, "orgs": [], "auth": access}

    def _create(self):
        self._need_token()
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or self.hub.user}/{wanted['name']}"
        private = wanted.get("private") or wanted.get("visibility") == "private"  # the latter since huggingface-hub 2
        return self.hub.create(f"{wanted.get('type') or 'model'}s", repo_id, private)

    def _validate_yaml(self):
        return {"errors": [], "warnings": []}

    def _info(self, kind, repo_id, revision):
        repo = self._repo(kind, repo_id)
        commit = self.hub.at(repo, revision or "main")
        siblings = []
        for path in repo.files():
            entry = repo.entry(path)
            sibling = {"rfilename": path, "size": entry["size"], "blobId": entry["oid"]}
            if "lfs" in entry:
                sibling["lfs"] = {**entry["lfs"], "sha256": entry["lfs"]["oid"]}
            siblings.append(sibling)
        private = self.hub.is_private(kind, repo_id)
        fixed = {"private": private, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
        return {"id": repo_id, "author": repo_id.split("/")[0], "sha": commit, "siblings": siblings, **fixed}

    def _tree(self, kind, repo_id, revision, path):
        repo = self._repo(kind, repo_id)
        self.hub.at(repo, revision)
        return repo.tree(path or "", self._flag("recursive"), self._flag("expand"))

    def _refs(self, kind, repo_id):
        commit = self._repo(kind, repo_id).revision()
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
        return {"branches": [main], "converts": [], "tags": []}

    def _paths_info(self, kind, repo_id, revision):
        repo = self._repo(kind, repo_id)
        self.hub.at(repo, revision)
        form = parse_qs(self.body.decode())
        expand = form.get("expand", ["False"])[0].lower() in ("true", "1")
        wanted = [path.strip("/") for path in form.get("paths", [])]
        return [repo.entry(path, expand) for path in wanted if path and repo.locate(path).exists()]

    def _writable(self, kind, repo_id, revision):
        self._need_token()
        if self._flag("create_pr"):
            raise HubError(501, "the fake hub has no pull requests")
        repo = self._repo(kind, repo_id)
        self.hub.at(repo, revision)
        return repo

    def _preupload(self, kind, repo_id, revision):
        repo = self._writable(kind, repo_id, revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            large = is_lfs(file["path"], file["size"], base64.b64decode(file["sample"]))
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if repo.locate(file["path"]).is_file():
                _, oid, sha256 = repo.identify(file["path"])
                answer["oid"] = sha256 or oid
            answers.append(answer)
        return {"files": answers}

    def _commit(self, kind, repo_id, revision):
        repo = self._writable(kind, repo_id, revision)
        operations = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        commit = self.hub.commit(repo, operations)
        prefix = "" if kind == "models" else f"{kind}/"
        url = f"{self.hub.url}/{prefix}{repo_id}/commit/{commit}"
        return {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}

    def _lfs_batch(self, kind, repo_id):
        self._need_token()
        self._repo(kind, repo_id)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if not (self.hub.objects / wanted["oid"]).is_file():
                upload = {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs/verify"}}
            answers.append(answer)
        return {"transfer": "basic", "objects": answers}

    def _lfs_put(self):
        """Keep an uploaded large file under its object id, once its content is seen to have that id."""
        digest, partial = hashlib.sha256(), self.hub.objects / f"{uuid.uuid4().hex}.partial"
        with open(partial, "wb") as file:
            for chunk in self._incoming():
                digest.update(chunk)
                file.write(chunk)
        if self.route != f"/lfs/{digest.hexdigest()}":
            partial.unlink()
            raise HubError(400, "the content does not have the object id that it was announced with")
        os.replace(partial, self.hub.objects / digest.hexdigest())
        self._send(200)

    def _lfs_verify(self):
        wanted = json.loads(self.body)
        stored = self.hub.objects / wanted["oid"]
        with contextlib.suppress(OSError):
            if stored.stat().st_size == wanted["size"]:
                return {}
        raise HubError(404, "the large file was not uploaded")


def _unquote(part):
    return unquote(part) if part else part

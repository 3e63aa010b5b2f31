"""A server that speaks the Hub's HTTP as far as `huggingface_hub` needs it to push and to fetch.

Written from the client's requests: repos/create, preupload, LFS batch, commit (NDJSON), and resolve
with its headers; not its Xet storage. Files live in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What the server holds and what it was asked.

    Attributes:
        revisions: repository -> commit -> file -> content; the last commit is `main`.
        objects: content by sha256, as LFS uploads it.
        asked: method and path of every request.
        token: that is wanted, or None for none.
        fault: of the next downloads: "" for none, "cut" (half of the bytes, then the connection
            ends), "hang" (nothing for a while), or a status such as "503".
        faults: how many downloads have it; -1 for all.
    """

    revisions: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    token: str | None = None
    fault: str = ""
    faults: int = -1
    url: str = ""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit; returns its hash."""
        commits = self.revisions.setdefault(repository, {})
        before = list(commits.values())[-1] if commits else {}
        content = before | files
        digest = hashlib.sha1(str(len(commits)).encode())
        for name in sorted(content):
            digest.update(name.encode() + content[name])
        commits[digest.hexdigest()] = content
        return digest.hexdigest()

    def resolve(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a branch or commit."""
        commits = self.revisions.get(repository, {})
        name = list(commits)[-1] if revision == "main" and commits else revision
        return (name, commits[name]) if name in commits else None


def serve(hub: Hub) -> ThreadingHTTPServer:  # noqa: C901 - one handler for one protocol
    """Start on a free port, in a thread; `hub.url` says where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, value=None, status=200, headers=(), body=None):
            content = json.dumps(value).encode() if body is None else body
            self.send_response(status)
            for name, text in dict(headers).items():
                self.send_header(name, text)
            if "Content-Length" not in dict(headers):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def refuse(self, status, message, code=""):
            self.answer(
                {"error": message}, status, {"X-Error-Message": message, "X-Error-Code": code}
            )

        def body(self):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def allowed(self):
            if hub.token is None or self.headers.get("Authorization") == f"Bearer {hub.token}":
                return True
            self.body()
            self.refuse(401, "Invalid username or password.", "")
            return False

        def begin(self):
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            return path, path.strip("/").split("/")

        def do_POST(self):
            path, parts = self.begin()
            if not self.allowed():
                return
            content = self.body()
            if path == "/api/repos/create":
                wanted = json.loads(content)
                name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
                name = name if "/" in name else f"me/{name}"
                hub.revisions.setdefault(name, {})
                self.answer({"url": f"{hub.url}/{name}", "name": name, "id": name})
            elif "preupload" in parts:
                files = json.loads(content)["files"]
                self.answer({"files": [self._mode(file) for file in files]})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = json.loads(content)["objects"]
                self.answer({"transfer": "basic", "objects": [self._upload(o) for o in objects]})
            elif "commit" in parts:
                repository = "/".join(parts[2:4])
                done = hub.commit(repository, self._files(content))
                self.answer(
                    {"success": True, "commitOid": done, "commitUrl": f"{hub.url}/{repository}"}
                )
            else:
                self.answer({}, 200)  # validate-yaml and the like

        def _mode(self, file):
            large = file["path"].endswith(".safetensors")
            mode = "lfs" if large else "regular"
            return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

        def _upload(self, wanted):
            href = f"{hub.url}/upload/{wanted['oid']}"
            return wanted | {"actions": {"upload": {"href": href, "header": {}}}}

        def _files(self, content):
            files = {}
            for line in content.decode().splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = hub.objects[value["oid"]]
            return files

        def do_PUT(self):
            _, parts = self.begin()
            content = self.body()
            assert hashlib.sha256(content).hexdigest() == parts[-1]
            hub.objects[parts[-1]] = content
            self.answer({})

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            _, parts = self.begin()
            if not self.allowed():
                return
            if parts[:2] == ["api", "models"]:
                self._repository("/".join(parts[2:4]), parts[4:])
            elif parts[:2] == ["api", "datasets"] and parts[4:5] == ["tree"]:
                files = hub.resolve("/".join(parts[1:4]), parts[5])[1]
                entries = [{"type": "file", "path": n, "size": len(c)} for n, c in files.items()]
                self.answer([entry | {"oid": "0" * 40} for entry in entries])
            elif parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
                self._file("/".join(parts[:3]), parts[4], "/".join(parts[5:]))
            elif len(parts) > 4 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                self.refuse(404, "not here", "RepoNotFound")

        def _repository(self, name, rest):
            revision = rest[1] if len(rest) > 1 and rest[0] == "revision" else "main"
            found = hub.resolve(name, revision)
            if name not in hub.revisions:
                self.refuse(404, "Repository not found", "RepoNotFound")
                return
            commit, files = found or ("0" * 40, {})
            siblings = [{"rfilename": file} for file in files]
            self.answer({"id": name, "sha": commit, "siblings": siblings, "private": False})

        def _file(self, repository, revision, name):
            if repository not in hub.revisions:
                self.refuse(404, "Repository not found", "RepoNotFound")
                return
            found = hub.resolve(repository, revision)
            if found is None:
                self.refuse(404, "Revision not found", "RevisionNotFound")
                return
            commit, files = found
            if name not in files:
                self.refuse(404, "Entry not found", "EntryNotFound")
                return
            content = files[name]
            headers = {
                "X-Repo-Commit": commit,
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "Accept-Ranges": "bytes",
                "Content-Type": "application/octet-stream",
            }
            if self.command == "GET" and hub.fault and hub.faults:
                hub.faults -= 1
                self._fail(headers, content)
                return
            start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
            if self.command == "GET" and int(start):
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.answer(status=206, headers=headers, body=content[int(start) :])
                return
            self.answer(headers=headers, body=content)

        def _fail(self, headers, content):
            if hub.fault == "hang":
                time.sleep(4)
            if hub.fault in ("cut", "hang"):
                headers["Content-Length"] = str(len(content))
                self.answer(headers=headers, body=content[: len(content) // 2])
                self.close_connection = True
            else:
                self.refuse(int(hub.fault), "out of order")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

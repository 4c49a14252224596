"""A loopback server that speaks as much of W&B's API as a run takes: to start, to go on, to log numbers and to end.

`history` is what each run, by its id, has logged; `fault` is None, a status that it answers with, "slow" (no answer until
`woken` is set) or "cut" (it closes the connection). Files that a run uploads are taken and forgotten.
"""

import contextlib
import functools
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STREAM = re.compile(r"/files/[^/]+/[^/]+/([^/]+)/file_stream")
PLACE = {"entity": {"id": "e", "name": "e"}, "id": "p", "name": "p"}


class FakeWandb:
    """Serves on a free loopback port for as long as the `with` block lasts; any API key is accepted."""

    def __init__(self):
        self.history, self.asked, self.fault, self.woken = {}, [], None, threading.Event()

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_exception):
        self.woken.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, query, variables):
        """What a GraphQL query is told."""
        self.asked.append(query)
        name = variables.get("name")
        if "upsertBucket" in query:
            is_new = name not in self.history
            lines = self.history.setdefault(name, [])
            bucket = {"id": name, "name": name, "displayName": name, "config": "{}", "historyLineCount": len(lines)}
            return {"upsertBucket": {"bucket": {**bucket, "project": PLACE}, "inserted": is_new}}
        if "RunResumeStatus" in query:
            return {"model": {**PLACE, "bucket": self._kept(name) if name in self.history else None}}
        if "CreateRunFiles" in query:
            files = [{"name": file, "uploadUrl": f"{self.url}/upload"} for file in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query:  # wandb 0.31 makes one of a table when it syncs; it is there already, says this
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if "__type" in query:
            return {kind: {"fields": []} for kind in ("QueryType", "MutationType", "ServerInfoType")}
        viewer = {"id": "u", "entity": "e", "username": "e", "email": "e@e", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"features": []}, "entity": {"organization": {}}}

    def _kept(self, name):
        lines = self.history[name]
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "config": "{}",
            "summaryMetrics": "{}",
            "historyLineCount": len(lines),
            "historyTail": json.dumps([json.dumps(line) for line in lines[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "wandbConfig": '{"t": 1}',
            "tags": [],
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server, *arguments):
        self.fake = server
        super().__init__(*arguments)

    def log_message(self, *_arguments):
        """Say nothing."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.fake.fault
        if isinstance(fault, int):
            return self._send(fault, {"errors": [{"message": "a fault"}]})
        if fault is not None:
            if fault == "slow":
                self.fake.woken.wait(60)
            self.close_connection = True
            return None
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/graphql":
            asked = json.loads(body)
            return self._send(200, {"data": self.fake.answer(asked["query"], asked.get("variables") or {})})
        if stream := STREAM.fullmatch(self.path):
            said = (json.loads(body).get("files") or {}).get("wandb-history.jsonl")
            if said:
                lines = self.fake.history[stream[1]]
                lines[said["offset"] :] = [json.loads(line) for line in said["content"]]
        return self._send(200, {})

    do_PUT = do_GET = do_POST

    def handle(self):
        """As always, but for clients that are ended."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _send(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

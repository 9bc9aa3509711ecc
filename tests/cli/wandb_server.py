"""As much of a W&B server as the real client needs to create, resume, fill and read runs, on this machine."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = {"id": "p", "name": "gbn", "entity": {"id": "e", "name": "me"}}
USER = {"id": "u", "entity": "me", "username": "me", "name": "me", "email": "", "flags": "{}", "admin": False}
VIEWER = {**USER, "teams": {"edges": []}, "apiKeys": {"edges": []}}


class LocalServer:
    """Runs by id, each with its history lines and summary; a context manager that serves at `url`."""

    def __init__(self):
        self.runs = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def steps(self, run_id):
        """The steps of a run's history, as they came in."""
        return [json.loads(line)["_step"] for line in self.runs[run_id]["history"]]

    def answer(self, operation, variables):
        """The data of one GraphQL request."""
        name = variables.get("name")
        run = self.runs.get(name)
        if operation == "UpsertBucket":
            run = self.runs.setdefault(
                name, {"history": [], "summary": {}, "state": "running", "given": variables}
            )
            return {"upsertBucket": {"bucket": self.bucket(name), "inserted": not run["history"]}}
        if operation == "RunResumeStatus":
            return {"model": {**PROJECT, "bucket": self.bucket(name) if run else None}}
        if operation == "CreateRunFiles":
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}}
        if operation in ("Run", "RunHistoryKeys"):
            return {"project": {"projectId": "1", "run": self.bucket(name) if run else None}}
        return {"viewer": VIEWER}

    def bucket(self, name):
        """A run as W&B describes it."""
        run = self.runs[name]
        last = json.loads(run["history"][-1]) if run["history"] else {}
        return {
            "id": "x",
            "name": name,
            "displayName": name,
            "description": None,
            "project": PROJECT,
            "projectId": "1",
            "state": run["state"],
            "config": "{}",
            "wandbConfig": '{"t": {}}',
            "sweepName": None,
            "tags": [],
            "user": USER,
            "summaryMetrics": json.dumps(run["summary"]),
            "historyKeys": {"lastStep": last["_step"], "keys": {}} if last else None,
            "historyLineCount": len(run["history"]),
            "historyTail": json.dumps([json.dumps(last)] if last else []),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
        }

    def stream(self, run_id, sent):
        """Lines of a run's files, as its client sends them while it goes on."""
        run = self.runs[run_id]
        for name, part in (sent.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                assert part["offset"] == len(run["history"]), "history lines overwrite or leave out others"
                run["history"] += part["content"]
            elif name == "wandb-summary.json":
                run["summary"] = json.loads(part["content"][-1])
        if sent.get("complete"):
            run["state"] = "finished" if sent.get("exitcode") == 0 else "failed"

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.reply({})

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path.endswith("/graphql"):
                    request = json.loads(body)
                    query, variables = request["query"], request.get("variables") or {}
                    operation = request.get("operationName") or query.split("(")[0].split()[-1]
                    self.reply({"data": server.answer(operation, variables)})
                elif self.path.endswith("/file_stream"):
                    server.stream(self.path.split("/")[-2], json.loads(body))
                    self.reply({})
                else:
                    self.reply({})

            def reply(self, content):
                text = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        return Handler

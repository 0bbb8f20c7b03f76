"""A local W&B server with those parts of the protocol that the client of wandb 0.31 uses.

    with WandbServer() as server:
        subprocess.run(command, env={**os.environ, **server.environment})
    server.runs["the run's id"].history

It answers GraphQL operations by name, receives curves as a "file stream" and files by PUT, and
reports the last step of a known run.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote, unquote

from tests.misbehaving_server import LoopbackServer


@dataclass
class Run:
    name: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)


class WandbServer(LoopbackServer):
    """The server. Before it is started, it accepts connections but never answers.

    Args:
        dies_at: when this step of a run arrives, the server closes all connections, for good.
    """

    def __init__(self, dies_at: float = math.inf) -> None:
        super().__init__(_Handler)
        self.environment = {
            "WANDB_MODE": "online",
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": "0" * 40,
            # Seconds to wait for a server that has died.
            "WANDB_HTTP_TIMEOUT": "1",
            "WANDB_FINISH_TIMEOUT": "60" if dies_at == math.inf else "1",
        }
        self.runs: dict[str, Run] = {}
        self.dies_at = dies_at
        self.dead = False

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse every request after the server has died."""
        return not self.dead


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = json.loads(self._body())
        if self.path != "/graphql":
            run = self.server.runs[self.path.split("/")[-2]]
            lines = content.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            run.history += map(json.loads, lines)
            if run.history and run.history[-1]["_step"] >= self.server.dies_at:
                self.server.dead = True
            self._answer({})
            return
        operation = re.search(r"(?:query|mutation)\s+(\w+)", content["query"])
        assert operation
        answer = _ANSWERS.get(operation[1])
        self._answer({"data": answer(self.server, content.get("variables")) if answer else {}})

    def do_PUT(self) -> None:
        kind, owner, name = map(unquote, self.path.split("/")[1:])
        body = self._body()
        for run_id, run in self.server.runs.items():
            if kind == "file" and run_id == owner:
                run.files[name] = body
            elif kind == "artifact" and owner in run.artifacts:
                run.artifacts[owner][name] = body
        self._answer({})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, content: dict[str, Any]) -> None:
        if self.server.dead:
            self.close_connection = True
            return
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


Variables = dict[str, Any]
_TEAM = {"id": "entity", "name": "team"}


def _resume_status(server: WandbServer, variables: Variables) -> Variables:
    run = server.runs.get(variables["name"])
    bucket = run and {
        "id": variables["name"],
        "name": variables["name"],
        "displayName": run.name,
        "historyLineCount": len(run.history),
        "historyTail": json.dumps([json.dumps(line) for line in run.history[-1:]]),
        "eventsLineCount": 0,
        "eventsTail": "[]",
        "logLineCount": 0,
        "summaryMetrics": "{}",
        "config": "{}",
        "wandbConfig": '{"t": 1}',
        "tags": [],
        "notes": None,
    }
    return {"model": {"id": "p", "name": variables["project"], "entity": _TEAM, "bucket": bucket}}


def _upsert_run(server: WandbServer, variables: Variables) -> Variables:
    run_id, project = variables["name"], variables["project"]
    inserted = run_id not in server.runs
    run = server.runs.setdefault(run_id, Run())
    run.name = variables.get("displayName") or run.name
    bucket = {
        "id": run_id,
        "name": run_id,
        "displayName": run.name,
        "description": None,
        "config": "{}",
        "sweepName": None,
        "project": {"id": "project", "name": project, "entity": _TEAM},
        "historyLineCount": len(run.history),
    }
    return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}


def _place(server: WandbServer, kind: str, owner: str, name: str) -> str:
    return f"{server.url}/{kind}/{quote(owner, safe='')}/{quote(name, safe='')}"


def _run_files(server: WandbServer, variables: Variables) -> Variables:
    run = variables["run"]
    files = [
        {"name": name, "uploadUrl": _place(server, "file", run, name)}
        for name in variables["files"]
    ]
    return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}


def _artifact(server: WandbServer, variables: Variables) -> Variables:
    asked = variables["input"]
    name = asked["artifactCollectionName"]
    server.runs[asked["runName"]].artifacts[name] = {}
    artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
    return {"createArtifact": {"artifact": artifact}}


def _artifact_manifest(server: WandbServer, variables: Variables) -> Variables:
    place = _place(server, "artifact", variables["artifactID"], variables["name"])
    file = {"id": "file", "uploadUrl": place, "uploadHeaders": []}
    return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}


def _artifact_files(server: WandbServer, variables: Variables) -> Variables:
    nodes = [
        {
            "storagePath": file["name"],
            "uploadUrl": _place(server, "artifact", file["artifactID"], file["name"]),
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": file["artifactID"]},
        }
        for file in variables["input"]["artifactFiles"]
    ]
    return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}


_ANSWERS: dict[str, Callable[[WandbServer, Variables], Variables]] = {
    "Viewer": lambda *_: {
        "viewer": {"id": "user", "entity": "team", "username": "user", "teams": {"edges": []}}
    },
    "RunResumeStatus": _resume_status,
    "UpsertBucket": _upsert_run,
    "CreateRunFiles": _run_files,
    "ArtifactType": lambda *_: {"project": {"artifact": None}},
    "CreateArtifact": _artifact,
    "CreateArtifactManifest": _artifact_manifest,
    "CreateArtifactFiles": _artifact_files,
    "CommitArtifact": lambda _, asked: {
        "commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": ""}}
    },
}

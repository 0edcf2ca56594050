"""A stand-in for the API of Kubernetes: the few requests of the plugin, and pods that fail as real ones do."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from typing import Any
from urllib.parse import parse_qs, urlparse

Json = dict[str, Any]

PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+))?")

NAMESPACES = {"default", "chem"}

MISSING = 'Back-off pulling image "nothing": manifest for nothing:latest not found: manifest unknown'
FULL = "0/3 nodes are available: 3 Insufficient cpu."

PENDING: dict[str, Json] = {
    "nothing": {"reason": "ImagePullBackOff", "message": MISSING},
    "slow": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "slow": i/o timeout'},
    "Wrong": {"reason": "InvalidImageName", "message": 'couldn\'t parse image name "Wrong"'},
    "starting": {"reason": "ContainerCreating"},
}
"""Images whose containers wait, and the reasons."""


class Cluster:
    """Its pods, by name. A pod with the image `busy` does not fit on a node; with `here` its command runs."""

    def __init__(self) -> None:
        self.pods: dict[str, Json] = {}
        self.trouble: tuple[int, str, str] | None = None
        """Status, reason and message of every answer, if the service is in trouble."""
        self.quota = 1000
        """Pods that are allowed at once."""
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def create(self, namespace: str, pod: Json) -> tuple[int, Json]:
        metadata, spec = pod["metadata"], pod["spec"]
        if namespace not in NAMESPACES:
            return _failure(404, "NotFound", f'namespaces "{namespace}" not found')
        if metadata["name"] in self.pods:
            return _failure(409, "AlreadyExists", f'pods "{metadata["name"]}" already exists')
        if spec.get("serviceAccountName") == "stranger":
            words = 'error looking up service account default/stranger: serviceaccount "stranger" not found'
            return _failure(403, "Forbidden", f'pods "{metadata["name"]}" is forbidden: {words}')
        if sum(not _ended(one) for one in self.pods.values()) >= self.quota:
            words = f"exceeded quota: compute, requested: pods=1, used: pods={self.quota}, limited: pods={self.quota}"
            return _failure(403, "Forbidden", f'pods "{metadata["name"]}" is forbidden: {words}')
        metadata["creationTimestamp"] = "2026-11-27T07:00:00Z"
        self.pods[metadata["name"]] = {**pod, "status": self._begin(metadata["name"], spec["containers"][0])}
        return 201, self.pods[metadata["name"]]

    def list(self, selector: str) -> tuple[int, Json]:
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        for name in self.pods:
            self._look(name)
        chosen = [pod for pod in self.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]
        return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": chosen}

    def delete(self, name: str) -> tuple[int, Json]:
        if name not in self.pods:
            return _failure(404, "NotFound", f'pods "{name}" not found')
        if name in self._running:
            self._running.pop(name).terminate()
        return 200, self.pods.pop(name)

    def close(self) -> None:
        for name in list(self.pods):
            self.delete(name)

    def end(self, name: str, terminated: Json | None = None, **status: Any) -> None:
        """The end of a pod: its container's end, or the reason and message of the node."""
        ended = [{"name": "workers", "state": {"terminated": terminated}}] if terminated else []
        phase = "Succeeded" if terminated and terminated["exitCode"] == 0 else "Failed"
        self.pods[name]["status"] = {"phase": phase, "containerStatuses": ended, **status}

    def _begin(self, name: str, container: Json) -> Json:
        if container["image"] == "busy":
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": FULL}
            return {"phase": "Pending", "conditions": [condition]}
        if container["image"] in PENDING:
            waiting = {"name": "workers", "state": {"waiting": PENDING[container["image"]]}}
            return {"phase": "Pending", "containerStatuses": [waiting]}
        if container["image"] == "here":
            self._running[name] = subprocess.Popen(container["command"])
        return {"phase": "Running", "containerStatuses": [{"name": "workers", "state": {"running": {}}}]}

    def _look(self, name: str) -> None:
        process = self._running.get(name)
        if process is not None and process.poll() is not None and not _ended(self.pods[name]):
            reason = "Completed" if process.returncode == 0 else "Error"
            self.end(name, {"exitCode": process.returncode % 256, "reason": reason})

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, Json]:
        parts = urlparse(url)
        found = PODS.fullmatch(parts.path)
        if self.trouble:
            return _failure(*self.trouble)
        if found is None:
            return _failure(404, "NotFound", "the server could not find the requested resource")
        with self._lock:
            if method == "POST":
                return self.create(found[1], json.loads(body))
            if method == "DELETE":
                return self.delete(found[2])
            return self.list(parse_qs(parts.query).get("labelSelector", [""])[0])


def _ended(pod: Json) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def _failure(code: int, reason: str, message: str) -> tuple[int, Json]:
    return code, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}

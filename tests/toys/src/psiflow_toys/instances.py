"""A stand-in for the API of Compute Engine: the few requests of the plugin, and instances that fail as real ones do."""

from __future__ import annotations

import json
import re
import threading
from typing import Any
from urllib.parse import parse_qs, urlparse

Json = dict[str, Any]

PATH = re.compile(r"/compute/v1/projects/([^/]+)/zones/([^/]+)/(instances|operations)(?:/([^/]+))?")
TYPES = {"c3-standard-4", "n1-standard-8"}
IMAGES = {"projects/chem/global/images/psiflow"}
LINK = "https://www.googleapis.com/compute/v1/projects/chem/zones/europe-west4-a/instances/"

EXHAUSTED = {"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "The zone does not have enough resources available."}
QUOTA = {"code": "QUOTA_EXCEEDED", "message": "Quota 'NVIDIA_T4_GPUS' exceeded. Limit: 1.0 in region europe-west4."}


class Engine:
    """Its instances, by name, and all that was done to them."""

    def __init__(self) -> None:
        self.instances: dict[str, Json] = {}
        self.operations: list[Json] = []
        self.trouble: tuple[int, str, str] | None = None
        """Status, reason and message of every answer, if the service is in trouble."""
        self.no_start: Json | None = None
        """The error with which instances do not start, found after the request was taken."""
        self._lock = threading.Lock()

    def end(self, name: str, kind: str, user: str = "system@google.com", message: str = "", gone: bool = True) -> None:
        """The end of an instance by an operation; with `gone`, it is deleted then."""
        self._done(kind, name, user, message)
        if gone:
            self.instances.pop(name)
        else:
            self.instances[name]["status"] = "TERMINATED"

    def insert(self, instance: Json) -> tuple[int, Json]:
        machine = instance["machineType"].rpartition("/")[2]
        if machine not in TYPES:
            words = f"Invalid value for field 'resource.machineType': '{machine}'. It does not exist."
            return _failure(400, "invalid", words)
        image = instance["disks"][0]["initializeParams"]["sourceImage"]
        if image not in IMAGES:
            return _failure(404, "notFound", f"The resource '{image}' was not found")
        if instance["name"] in self.instances:
            return _failure(409, "alreadyExists", f"The resource '{instance['name']}' already exists")
        if self.no_start:
            status = {"httpErrorStatusCode": 503, "httpErrorMessage": "SERVICE UNAVAILABLE"}
            late = self._done("insert", instance["name"], error={"errors": [self.no_start]}, **status)
            return 200, {"name": late["name"], "status": "RUNNING"}
        self.instances[instance["name"]] = {**instance, "status": "PROVISIONING"}
        return 200, self._done("insert", instance["name"])

    def delete(self, name: str) -> tuple[int, Json]:
        if name not in self.instances:
            return _failure(404, "notFound", f"The resource 'instances/{name}' was not found")
        self.instances.pop(name)
        return 200, self._done("delete", name)

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, Json]:
        parts = urlparse(url)
        found = PATH.fullmatch(parts.path)
        wanted = parse_qs(parts.query).get("filter", [""])[0]
        if self.trouble:
            return _failure(*self.trouble)
        if found is None or found[1] != "chem":
            return _failure(404, "notFound", f"The resource '{parts.path}' was not found")
        with self._lock:
            if found[3] == "operations":
                return 200, self._operations(found[4], wanted)
            if method == "POST":
                return self.insert(json.loads(body))
            if method == "DELETE":
                return self.delete(found[4])
            key, _, value = wanted.removeprefix("labels.").partition("=")
            return 200, {"items": [one for one in self.instances.values() if one["labels"].get(key) == value]}

    def _operations(self, name: str | None, wanted: str) -> Json:
        if name:
            (found,) = (one for one in self.operations if one["name"] == name)
            return found
        link = wanted.partition("=")[2].strip().strip('"')
        return {"items": [one for one in self.operations if one["targetLink"] == link]}

    def _done(self, kind: str, name: str, user: str = "me@example.org", message: str = "", **error: Any) -> Json:
        number = len(self.operations)
        operation = {
            "name": f"operation-{number}",
            "operationType": kind,
            "user": user,
            "status": "DONE",
            "statusMessage": message,
            "targetLink": LINK + name,
            "insertTime": f"2026-11-27T07:{number:02d}:00Z",
            **error,
        }
        self.operations.append(operation)
        return operation


def _failure(code: int, reason: str, message: str) -> tuple[int, Json]:
    return code, {"error": {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}}

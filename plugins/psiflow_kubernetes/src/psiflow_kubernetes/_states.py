"""The state of a block, read from the status of its pod."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psiflow_core.execution.blocks import BlockState

Json = Mapping[str, Any]

IMAGE = {"ErrImagePull", "ImagePullBackOff"}

NO_IMAGE = re.compile(r"not found|manifest unknown|does not exist|denied|unauthorized|forbidden", re.IGNORECASE)
"""Words of a registry that has no such image for this user; other failures to pull one pass."""

NEVER = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"}
NEVER |= {"RunContainerError", "StartError", "ContainerCannotRun"}
"""Reasons why a container will not start later either."""

LINES = 3
"""Lines of a container's last output that are shown."""


def state(pod: Json) -> BlockState:
    """The state of a pod: its phase, and why, by its conditions and its container."""
    status: Json = pod.get("status", {})
    phase = status.get("phase", "Pending")
    if phase in ("Succeeded", "Failed"):
        return _ended(status)
    if phase == "Pending":
        return _pending(status)
    if phase == "Unknown":
        return BlockState("running", _joined("its node does not answer", status.get("message")))
    return BlockState("running", "is being deleted" if pod["metadata"].get("deletionTimestamp") else "")


def has_ended(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def ended_at(pod: Json) -> datetime | None:
    """The time of the last change of a pod that has ended; None if it has not, or does not tell."""
    status = pod.get("status", {})
    times = [one.get("lastTransitionTime") for one in status.get("conditions") or ()]
    times.append(_container(status, "terminated").get("finishedAt"))
    return max((datetime.fromisoformat(one) for one in times if one), default=None) if has_ended(pod) else None


def _pending(status: Json) -> BlockState:
    waiting = _container(status, "waiting")
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in NEVER or (reason in IMAGE and NO_IMAGE.search(message)):
        return BlockState("ended", _joined(reason, message))
    if reason and reason != "ContainerCreating":
        return BlockState("waiting", _joined(reason, message))
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return BlockState("waiting", _joined(scheduled.get("reason"), scheduled.get("message")))
    return BlockState("waiting", reason)


def _ended(status: Json) -> BlockState:
    """A pod's own reason means that Kubernetes ended it: Evicted, DeadlineExceeded, NodeLost, Preempting."""
    ended = _container(status, "terminated")
    disrupted = _condition(status, "DisruptionTarget")
    code = ended.get("exitCode")
    if disrupted.get("status") == "True" or status.get("reason"):
        why = (status.get("reason") or disrupted.get("reason"), status.get("message") or disrupted.get("message"))
        return BlockState("ended", _joined(*why), interrupted=True)
    reason = ended.get("reason") if ended.get("reason") not in ("Completed", "Error") else ""
    last = " | ".join(line for line in ended.get("message", "").splitlines()[-LINES:] if line.strip())
    return BlockState("ended", _joined(reason, last), code=code)


def _container(status: Json, kind: str) -> Json:
    """The state of the pod's container, if it is of this kind."""
    containers = status.get("containerStatuses") or [{}]  # an evicted pod may have none
    found: Json = containers[0].get("state", {}).get(kind) or {}
    return found


def _condition(status: Json, kind: str) -> Json:
    return next((one for one in status.get("conditions") or () if one.get("type") == kind), {})


def _joined(*words: str | None) -> str:
    return ": ".join(word for word in words if word)

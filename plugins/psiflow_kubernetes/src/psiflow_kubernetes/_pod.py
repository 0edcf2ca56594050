"""The manifest of a pod."""

from __future__ import annotations

import getpass
import re
import shlex
from typing import Any

from psiflow_core.execution.blocks import Block
from psiflow_kubernetes.options import CLAIM, KubernetesOptions

OURS = {"app.kubernetes.io/managed-by": "psiflow"}
USER = "psiflow/user"
BLOCK = "psiflow/block"
"""The annotation with the name of a block."""

GRACE = 60
"""Time between SIGTERM and SIGKILL when a pod is deleted or evicted. [s]"""

LATER = 60
"""The pod's own deadline comes so long after its walltime, at which the guard ends the work. [s]"""

LONGEST = 63
"""Letters of the name of a pod, which becomes its host name."""


def name(block: Block) -> str:
    """The name of a block's pod."""
    return re.sub(r"[^a-z0-9-]+", "-", block.name.lower())[:LONGEST].strip("-")


def user() -> str:
    """This user's name, as the value of a label."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", getpass.getuser())[:LONGEST].strip("-_.")


def manifest(options: KubernetesOptions, block: Block) -> dict[str, Any]:
    metadata = {
        "name": name(block),
        "labels": {**options.labels, **OURS, USER: user()},
        "annotations": {BLOCK: block.name},
    }
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": GRACE,
        "enableServiceLinks": False,
        **options.settings(),
        "restartPolicy": "Never",
        "activeDeadlineSeconds": round(options.walltime) + LATER,
        "containers": [_container(options, block)],
        "volumes": [_volume(number, source) for number, source in enumerate(options.volumes.values())],
    }
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    if options.node_selector:
        spec["nodeSelector"] = options.node_selector
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _container(options: KubernetesOptions, block: Block) -> dict[str, Any]:
    """Its last lines of output become the message of its end, if it fails."""
    amounts = {"cpu": str(options.cores)}
    if options.memory:
        amounts["memory"] = f"{round(1024 * options.memory)}Mi"
    if options.gpus:
        amounts[options.gpu_resource] = str(options.gpus)
    mounts = [{"name": f"volume-{number}", "mountPath": path} for number, path in enumerate(options.volumes)]
    return {
        "name": "workers",
        "image": options.container,
        "command": command(options, block),
        "env": [{"name": key, "value": value.replace("$(", "$$(")} for key, value in block.secrets.items()],
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def command(options: KubernetesOptions, block: Block) -> list[str]:
    """The block's command, after the lines of set-up. Kubernetes replaces $(NAME) in it, but not $$(NAME)."""
    if not options.setup:
        return [word.replace("$(", "$$(") for word in block.command]
    lines = "\n".join([*options.setup, f"exec {shlex.join(block.command)}"])
    return ["/bin/sh", "-c", lines.replace("$(", "$$(")]


def _volume(number: int, source: str) -> dict[str, Any]:
    if source.startswith(CLAIM):
        return {"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": source.removeprefix(CLAIM)}}
    return {"name": f"volume-{number}", "hostPath": {"path": source, "type": "Directory"}}

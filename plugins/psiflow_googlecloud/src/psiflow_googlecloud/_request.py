"""The request for an instance, and its start-up script."""

from __future__ import annotations

import getpass
import re
import shlex
from typing import Any

from psiflow_core.execution.blocks import Block, Cloud, Docker, start_up_script
from psiflow_googlecloud.options import GoogleCloudOptions

METADATA = "http://metadata.google.internal/computeMetadata/v1/instance"
"""The metadata service of an instance."""

ASK = f"curl -fs -m 5 -H 'Metadata-Flavor: Google' {METADATA}"

NOTICE = f'[ "$({ASK}/preempted)" = TRUE ]'
"""Shell: whether Google will take this spot instance back."""

DELETE = """token=$({ask}/service-accounts/default/token | sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/')
[ -z "$token" ] || curl -fs -m 30 -X DELETE -H "Authorization: Bearer $token" {instance}"""
"""Shell: delete this instance, if its service account may. Otherwise the driver does."""

SERVICE = "https://compute.googleapis.com"

OURS = "psiflow"
"""The label of all instances, with the name of the user."""

BLOCK = "psiflow-block"
"""The label and the metadata with the name of a block."""

LONGEST = 63
"""Letters of a name, and of the value of a label."""

LATER = 120
"""Google deletes an instance so long after its walltime, unless it has ended itself. [s]"""


def name(block: Block) -> str:
    """The name of a block's instance."""
    return re.sub(r"[^a-z0-9-]+", "-", block.name.lower())[:LONGEST].strip("-")


def user() -> str:
    """This user's name, as the value of a label."""
    return re.sub(r"[^a-z0-9_-]+", "-", getpass.getuser().lower())[:LONGEST]


def link(options: GoogleCloudOptions, instance: str) -> str:
    """The path of an instance below an address of the service."""
    return f"/compute/v1/projects/{options.project}/zones/{options.zone}/instances/{instance}"


def script(options: GoogleCloudOptions, block: Block) -> str:
    container = Docker(options.container, options.binds, bool(options.gpus)) if options.container else None
    own = shlex.quote((options.endpoint or SERVICE) + link(options, name(block)))
    finish = DELETE.format(ask=ASK, instance=own)
    return start_up_script(block, Cloud(NOTICE, finish), options.setup, options.walltime, container)


def request(options: GoogleCloudOptions, block: Block) -> dict[str, Any]:
    """The instance, as the service's own field names say it."""
    zone = f"zones/{options.zone}"
    found: dict[str, Any] = {
        "name": name(block),
        "machine_type": f"{zone}/machineTypes/{options.machine_type}",
        "labels": {**options.labels, OURS: user(), BLOCK: name(block)},
        "disks": [_disk(options)],
        "network_interfaces": [_network(options)],
        "metadata": {
            "items": [
                {"key": "startup-script", "value": script(options, block)},
                {"key": BLOCK, "value": block.name},
                {"key": "serial-port-logging-enable", "value": "TRUE"},
            ]
        },
        "scheduling": _scheduling(options),
    }
    if options.gpu_type:
        kind = f"{zone}/acceleratorTypes/{options.gpu_type}"
        found["guest_accelerators"] = [{"accelerator_type": kind, "accelerator_count": options.gpus}]
    if options.service_account:
        scope = "https://www.googleapis.com/auth/cloud-platform"
        found["service_accounts"] = [{"email": options.service_account, "scopes": [scope]}]
    return found


def _disk(options: GoogleCloudOptions) -> dict[str, Any]:
    parameters = {"source_image": options.image, "disk_size_gb": options.disk, "labels": {OURS: user()}}
    return {"boot": True, "auto_delete": True, "initialize_params": parameters}


def _network(options: GoogleCloudOptions) -> dict[str, Any]:
    outside = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}] if options.external_address else []
    named = {"network": options.network, "subnetwork": options.subnetwork}
    given = {key: value for key, value in named.items() if value} or {"network": "global/networks/default"}
    return {**given, "access_configs": outside}


def _scheduling(options: GoogleCloudOptions) -> dict[str, Any]:
    """Google itself deletes the instance at last: it is never restarted, and never moved."""
    return {
        "provisioning_model": "SPOT" if options.spot else "STANDARD",
        "automatic_restart": False,
        "on_host_maintenance": "TERMINATE",
        "instance_termination_action": "DELETE",
        "max_run_duration": {"seconds": round(options.walltime) + LATER},
    }

"""The options of the executor."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from psiflow_core.execution.blocks import OnInstances

NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
PATH = r"^[\w./:-]+$"
LABEL = re.compile(r"[a-z0-9_-]{0,63}")


class GoogleCloudOptions(OnInstances):
    """The instance of a block: its image has psiflow, its plugins and their engines, or Docker for a `container`.

    `cores`, `gpus` and `memory` say what the machine type has, so that workers fit on it.
    """

    project: str = Field(pattern=r"^[a-z][a-z0-9:.-]+$")
    """The project."""
    zone: str = Field(pattern=NAME)
    """The zone: `europe-west4-a`."""
    machine_type: str = Field(pattern=r"^[a-z0-9-]+$")
    """The machine type: `c3-standard-44`."""
    image: str = Field(pattern=PATH)
    """The boot image: `projects/my-project/global/images/psiflow`, or `.../images/family/psiflow` for the newest of a
    family."""
    gpu_type: str = Field("", pattern=r"^[a-z0-9-]*$")
    """The type of the GPUs to be attached, `nvidia-tesla-t4` for instance; empty for machine types that have them."""
    spot: bool = False
    """Whether instances are spot instances: cheaper, and Google may take them back after a notice of 30 s."""
    disk: PositiveInt = 50
    """The size of the boot disk. [GB]"""
    network: str = Field("", pattern=r"^[\w./-]*$")
    """The network; by default the project's `default`."""
    subnetwork: str = Field("", pattern=r"^[\w./-]*$")
    """The subnetwork, for networks that have them."""
    external_address: bool = True
    """Whether instances get an address of the internet. Without one they reach a driver in their own network alone."""
    service_account: str = Field("", pattern=r"^[\w.@-]*$")
    """The e-mail address of the service account of instances. With the permission to delete instances, an instance
    deletes itself; without it, an instance of a driver that died stays, stopped, until the next driver deletes it."""
    labels: dict[str, str] = Field({})
    """More labels of the instances."""
    endpoint: str = ""
    """The address of the Compute Engine service, if it is another one than Google's."""

    @model_validator(mode="after")
    def _instance(self) -> Self:
        if self.gpu_type and not self.gpus:
            raise ValueError("gpu_type needs gpus")
        for key, value in self.labels.items():
            if not key or not LABEL.fullmatch(key) or not LABEL.fullmatch(value):
                raise ValueError(f"{key!r}: {value!r} is no label: up to 63 small letters, digits, '-' and '_'")
        return self

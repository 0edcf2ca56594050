"""The options of the executor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import yaml
from pydantic import Field, field_validator, model_validator

from psiflow_core.execution.blocks import FromImage

NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
"""Names of objects (RFC 1123)."""

LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
"""The value of a label."""

CLAIM = "pvc:"


class KubernetesOptions(FromImage):
    """The pod of a block: its image is `container`, which has psiflow, its plugins and their engines."""

    unit: ClassVar[str] = "pod"

    container: str = Field(min_length=1, pattern=r"^\S+$")
    """The image of the pod's container: `registry.example.org/group/psiflow:1.0`."""
    namespace: str = Field("default", pattern=NAME)
    """The namespace of pods."""
    context: str = ""
    """The context of the kubeconfig; by default its current one. In a pod, by default the cluster of that pod."""
    kubeconfig: str = ""
    """The kubeconfig file; by default that of kubectl."""
    service_account: str = Field("", pattern=f"{NAME}|^$")
    """The service account of pods; by default that of the namespace."""
    pull_secret: str = Field("", pattern=f"{NAME}|^$")
    """The secret with which images are pulled."""
    volumes: dict[str, str] = Field({})
    """Folders of the pod: its path there, and its source, `pvc:NAME` for a claim or `/path` for a folder of the node.
    A shared folder has the driver's path."""
    labels: dict[str, str] = Field({})
    """More labels of the pods."""
    node_selector: dict[str, str] = Field({})
    """Labels that a node must have."""
    gpu_resource: str = Field("nvidia.com/gpu", pattern=r"^[\w.-]+/[\w.-]+$")
    """The resource of a GPU."""

    @field_validator("volumes")
    @classmethod
    def _known_sources(cls, given: dict[str, str]) -> dict[str, str]:
        for path, source in given.items():
            claim = source.removeprefix(CLAIM) if source.startswith(CLAIM) else ""
            if not path.startswith("/") or not (source.startswith("/") or re.match(NAME, claim)):
                raise ValueError(f"{{{path!r}: {source!r}}}: give an absolute path, and pvc:NAME or an absolute path")
        return given

    @field_validator("labels", "node_selector")
    @classmethod
    def _label_values(cls, given: dict[str, str]) -> dict[str, str]:
        for value in given.values():
            if not LABEL.fullmatch(value):
                raise ValueError(f"{value!r} is not the value of a label: up to 63 letters, digits, '-', '_' and '.'")
        return given

    @model_validator(mode="after")
    def _pod(self) -> Self:
        if self.shared and not self.volumes:
            raise ValueError("shared=True needs volumes, in which the driver's files lie")
        if self.binds:
            raise ValueError("binds belong to Apptainer; give volumes")
        self.settings()
        return self

    def settings(self) -> Mapping[str, Any]:
        """The settings of the pod's spec in the option `directives`."""
        try:
            found = yaml.safe_load("\n".join(self.directives)) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"directives are not YAML: {error}") from None
        if not isinstance(found, dict):
            raise ValueError("directives are settings of the pod's spec in YAML, 'priorityClassName: low' for instance")
        if taken := sorted(found.keys() & {"containers", "restartPolicy", "activeDeadlineSeconds", "volumes"}):
            raise ValueError(f"directives set {', '.join(taken)}, which other options decide")
        return found

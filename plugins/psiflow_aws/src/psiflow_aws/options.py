"""The options of the executor."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from psiflow_core.execution.blocks import WORD, OnInstances


class AWSOptions(OnInstances):
    """The instance of a block: its image has psiflow, its plugins and their engines, or Docker for a `container`.

    `cores`, `gpus` and `memory` say what the instance type has, so that workers fit on it.
    """

    image: str = Field(pattern=r"^ami-[0-9a-f]+$")
    """The id of the machine image: `ami-0123456789abcdef0`."""
    instance_type: str = Field(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")
    """The instance type: `c7i.8xlarge`."""
    region: str = Field("", pattern=WORD)
    """The region; by default that of the AWS configuration."""
    profile: str = ""
    """The profile of the AWS configuration; by default the usual one."""
    spot: bool = False
    """Whether instances are spot instances: cheaper, and EC2 may take them back after a notice of two minutes."""
    subnet: str = Field("", pattern=r"^(subnet-[0-9a-f]+)?$")
    """The subnet; by default that of the default network."""
    security_groups: tuple[str, ...] = ()
    """The ids of security groups, `sg-0123456789abcdef0`; by default that of the network."""
    instance_profile: str = Field("", pattern=WORD)
    """The name of the instance profile: the permissions of programs on the instance."""
    key_name: str = ""
    """The key pair for a login by ssh."""
    disk: PositiveInt | None = None
    """The size of the root disk; by default that of the image. [GB]"""
    tags: dict[str, str] = Field({})
    """More tags of the instances and their disks."""
    endpoint: str = ""
    """The address of the EC2 service, if it is another one than the region's."""

    @model_validator(mode="after")
    def _instance(self) -> Self:
        if taken := sorted(key for key in self.tags if key.lower().startswith(("aws:", "psiflow")) or key == "Name"):
            raise ValueError(f"the tags {', '.join(taken)} are AWS's or psiflow's own")
        return self

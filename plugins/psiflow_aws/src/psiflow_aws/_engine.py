"""Instances of EC2, by the vendor's client."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, ProfileNotFound

from psiflow_aws import _request
from psiflow_aws.options import AWSOptions
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import (
    Block,
    BlockState,
    Scheduler,
    SchedulerUnavailable,
    SubmissionRefused,
    end_told,
)

LATER = {
    *("InstanceLimitExceeded", "VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow"),
    *(
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "InsufficientAddressCapacity",
    ),
    *("InsufficientFreeAddressesInSubnet", "VolumeLimitExceeded", "MaxIOPSLimitExceeded", "RequestLimitExceeded"),
    *("Throttling", "ThrottlingException", "EC2ThrottledException", "InternalError", "InternalFailure", "Unavailable"),
    *("ServiceUnavailable", "ServerInternal", "RequestExpired", "ExpiredToken", "IdempotentInstanceTerminated"),
    *("Resource.AlreadyAssigned", "ConcurrentTagAccess", "DryRunOperation"),
}
"""Errors that pass: a quota that is used up, no capacity, a service in trouble, credentials to be renewed."""

PHASES = {"pending": "waiting", "running": "running", "stopping": "running", "shutting-down": "running"}

BY_ITSELF = "Client.InstanceInitiatedShutdown"
"""The reason of an instance that shut itself down: its block has ended."""

OWN_FAULT = ("Client.InvalidSnapshot", "Client.InternalError", "Client.VolumeLimitExceeded")
"""Reasons of an instance that could not start as it was asked for."""


class Instances(Scheduler):
    """One instance for each block. Its id is EC2's."""

    interval = 15.0

    def __init__(self, options: AWSOptions) -> None:
        self._options = options
        self._ec2 = _client(options)

    def submit(self, block: Block) -> str:
        script = _request.script(self._options, block)
        if len(script.encode()) > _request.LONGEST:
            raise SubmissionRefused(f"the start-up script has {len(script.encode())} bytes, of 16384; shorten setup")
        try:
            device = self._root_device() if self._options.disk else ""
            answer = self._ec2.run_instances(**_request.request(self._options, block, device))
        except ClientError as error:
            kind = SchedulerUnavailable if _passes(error) else SubmissionRefused
            raise kind(_words(error)) from error
        except NoCredentialsError as error:
            raise SubmissionRefused(f"{error}; run `aws configure`, or give profile") from error
        except BotoCoreError as error:
            raise SchedulerUnavailable(str(error)) from error
        return str(answer["Instances"][0]["InstanceId"])

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        if not ids:
            return {}
        known = {one["InstanceId"]: one for one in self._described("instance-id", sorted(ids))}
        gone = BlockState("ended", "EC2 no longer knows the instance")
        return {job: self._state(known[job]) if job in known else gone for job in ids}

    def cancel(self, ids: Collection[str]) -> None:
        known = [one["InstanceId"] for one in self._described("instance-id", sorted(ids))] if ids else []
        if known:
            self._ask("terminate_instances", InstanceIds=known)

    def find(self, tag: str) -> Mapping[str, str]:
        found = self._described(f"tag:{_request.TAG}", [f"{tag}*"])
        alive = [one for one in found if one["State"]["Name"] in ("pending", "running", "stopping", "stopped")]
        names = {_name(one): one["InstanceId"] for one in alive}
        return {name: job for name, job in names.items() if name.startswith(tag)}

    def _state(self, instance: Mapping[str, Any]) -> BlockState:
        phase = instance["State"]["Name"]
        reason = instance.get("StateReason", {})
        words = str(reason.get("Message") or instance.get("StateTransitionReason", ""))
        if phase == "pending":
            return BlockState("waiting", words)
        if phase in PHASES:
            return BlockState("running", "" if phase == "running" else words)
        if reason.get("Code") == BY_ITSELF:
            code, last = end_told(self._console(instance["InstanceId"]))
            return BlockState("ended", last or words, code=code)
        return BlockState("ended", words, interrupted=reason.get("Code") not in OWN_FAULT)

    def _console(self, job: str) -> str:
        """The end of an instance's output; empty if EC2 does not have it, or this account may not read it."""
        try:
            return str(self._ec2.get_console_output(InstanceId=job).get("Output", ""))
        except (ClientError, BotoCoreError):
            return ""

    def _root_device(self) -> str:
        (image,) = self._ec2.describe_images(ImageIds=[self._options.image])["Images"]
        return str(image["RootDeviceName"])

    def _described(self, name: str, values: list[str]) -> list[dict[str, Any]]:
        """The instances that a filter chooses: unlike a list of ids, it is no error if one is gone."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(values), 200):  # EC2's limit for the values of a filter
            given: dict[str, Any] = {"Filters": [{"Name": name, "Values": values[start : start + 200]}]}
            while True:
                answer = self._ask("describe_instances", **given)
                found += [one for reservation in answer["Reservations"] for one in reservation["Instances"]]
                if not (token := answer.get("NextToken")):
                    break
                given["NextToken"] = token
        return found

    def _ask(self, request: str, **given: Any) -> Any:
        try:
            return getattr(self._ec2, request)(**given)
        except ClientError as error:
            raise SchedulerUnavailable(_words(error)) from error
        except BotoCoreError as error:
            raise SchedulerUnavailable(str(error)) from error


def _client(options: AWSOptions) -> Any:
    """The client of EC2 in a region.

    Raises:
        OptionError: there is no such profile, or no region.
    """
    settings = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 2})
    try:
        session = boto3.session.Session(
            profile_name=options.profile or None, region_name=options.region or None
        )  # a session of its own: boto3's default one is not made for threads
        return session.client("ec2", config=settings, endpoint_url=options.endpoint or None)
    except (ProfileNotFound, NoRegionError) as error:
        raise OptionError(f"executor 'aws': {error}; give region and profile, or run `aws configure`") from error


def _name(instance: Mapping[str, Any]) -> str:
    return next((str(tag["Value"]) for tag in instance.get("Tags", ()) if tag["Key"] == _request.TAG), "")


def _passes(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response["Error"]["Code"] in LATER or status >= 500


def _words(error: ClientError) -> str:
    """EC2's own words."""
    told = error.response["Error"]
    return f"{told.get('Message', 'no message')} ({told['Code']})"

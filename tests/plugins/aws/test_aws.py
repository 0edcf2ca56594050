"""Blocks as instances of EC2: the vendor's client against a stand-in for the service."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from psiflow_aws import _request
from psiflow_aws.executor import AWS
from psiflow_toys.service import serving

import psiflow_core as psiflow
from psiflow_core.components import Pool
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block, BlockState, Scheduler, SchedulerUnavailable, SubmissionRefused, set_up

REGION = "eu-west-1"
OPTIONS = {"image": "ami-12c6146b", "instance_type": "c5.xlarge", "region": REGION}


def scheduler(**options: object) -> Scheduler:
    return AWS(**{**OPTIONS, **options}).scheduler(Pool("pool", Path(), ("python",), 1))


def block(name: str = "psi12ab-all-0") -> Block:
    return Block(name, ("python3", "-m", "guard", "a  b"), Path("/shared/pool"), secrets={"KEY": "it's"})


def state(instances: Scheduler, job: str) -> BlockState:
    return instances.states([job])[job]


def described(ec2: Any, job: str) -> dict[str, Any]:
    (reservation,) = ec2.describe_instances(InstanceIds=[job])["Reservations"]
    (instance,) = reservation["Instances"]
    return dict(instance)


def ended(job: str, code: str, message: str) -> None:
    """The end of an instance, with EC2's reason."""
    instance = ec2_backends[DEFAULT_ACCOUNT_ID][REGION].get_instance(job)
    instance._state.name, instance._state.code = "terminated", 48
    instance.state_reason.code, instance.state_reason.message = code, message


def test_an_instance_is_what_the_options_say_and_ends_without_a_driver(ec2: Any) -> None:
    network = ec2.describe_subnets()["Subnets"][0]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    ec2.create_key_pair(KeyName="mine")
    instances = scheduler(
        cores=4,
        spot=True,
        disk=200,
        subnet=network["SubnetId"],
        security_groups=[group],
        key_name="mine",
        tags={"team": "chem"},
        setup="mount /data",
        walltime="02:00:00",
    )
    job = instances.submit(block())
    instance = described(ec2, job)
    assert instance["InstanceType"] == "c5.xlarge"
    assert instance["InstanceLifecycle"] == "spot"
    assert instance["SubnetId"] == network["SubnetId"]
    assert instance["KeyName"] == "mine"
    assert {tag["Key"]: tag["Value"] for tag in instance["Tags"]} == {
        "team": "chem",
        "Name": "psi12ab-all-0",
        "psiflow": "psi12ab-all-0",
    }
    shutdown = ec2.describe_instance_attribute(InstanceId=job, Attribute="instanceInitiatedShutdownBehavior")
    assert shutdown["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    given = ec2.describe_instance_attribute(InstanceId=job, Attribute="userData")["UserData"]["Value"]
    script = base64.b64decode(given).decode()
    assert script.startswith("#!/bin/bash\n")
    assert "export KEY='it'\"'\"'s'\n" in script
    assert "\n".join([*set_up(("mount /data",)), "exec python3 -m guard 'a  b'\n"]) in script
    assert "pause 7260" in script
    (disk,) = ec2.describe_volumes()["Volumes"]
    assert (disk["Size"], disk["VolumeType"]) == (200, "gp3")


def test_a_container_runs_on_an_instance_with_docker() -> None:
    options = AWS(**OPTIONS, container="chem/psiflow:1", binds=["/data"], gpus=1)
    words = (
        "exec docker run --rm --init --network host --env KEY --volume /data:/data --gpus all chem/psiflow:1 python3"
    )
    assert words in _request.script(options, block())


def test_an_instance_runs_until_it_is_cancelled(ec2: Any) -> None:
    instances = scheduler()
    job = instances.submit(block())
    assert state(instances, job) == BlockState("running")
    instances.cancel([job, "i-0123456789abcdef0"])
    seen = state(instances, job)
    assert (seen.phase, seen.interrupted) == ("ended", True)
    assert "User initiated" in seen.words
    instances.cancel([job])  # once more: it has ended
    assert state(instances, "i-0123456789abcdef0") == BlockState("ended", "EC2 no longer knows the instance")


def test_a_spot_instance_that_was_taken_back_was_interrupted(ec2: Any) -> None:
    instances = scheduler(spot=True)
    job = instances.submit(block())
    words = "Server.SpotInstanceTermination: Spot instance termination"
    ended(job, "Server.SpotInstanceTermination", words)
    assert state(instances, job) == BlockState("ended", words, interrupted=True)


def test_an_instance_that_ended_itself_was_not_interrupted(ec2: Any) -> None:
    instances = scheduler()
    job = instances.submit(block())
    ended(job, "Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
    seen = state(instances, job)
    assert (seen.phase, seen.interrupted) == ("ended", False)


def test_instances_are_found_by_the_tag_of_their_driver(ec2: Any) -> None:
    instances = scheduler()
    jobs = {name: instances.submit(block(name)) for name in ("psi12ab-all-0", "psi12ab-all-1", "psi34cd-all-0")}
    assert instances.find("psi12ab") == {name: job for name, job in jobs.items() if "12ab" in name}
    instances.cancel([jobs["psi12ab-all-0"]])
    assert set(instances.find("psi12ab")) == {"psi12ab-all-1"}


def test_what_is_never_accepted_is_refused_in_the_words_of_the_service(ec2: Any) -> None:
    with pytest.raises(SubmissionRefused, match=r"subnet-0123 does not exist|InvalidSubnetID"):
        scheduler(subnet="subnet-0123").submit(block())
    with pytest.raises(SubmissionRefused, match="the start-up script has"):
        scheduler(setup="x" * 20000).submit(block())


class Troubled:
    """An EC2 that answers with errors, as it writes them."""

    code, words, status = "VcpuLimitExceeded", "You have requested more vCPU capacity than your limit of 32 allows", 400

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, str]:
        error = f"<Error><Code>{self.code}</Code><Message>{self.words}</Message></Error>"
        return self.status, f"<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("VcpuLimitExceeded", "You have requested more vCPU capacity than your limit of 32 allows"),
        ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"),
        ("InsufficientInstanceCapacity", "We currently do not have sufficient p4d.24xlarge capacity"),
    ],
)
def test_a_start_without_quota_or_capacity_passes(code: str, words: str) -> None:
    service = Troubled()
    service.code, service.words = code, words
    with serving(service) as endpoint, pytest.raises(SchedulerUnavailable, match=f"{words}.*{code}"):
        scheduler(endpoint=endpoint).submit(block())


@pytest.mark.parametrize("code", ["InvalidAMIID.NotFound", "Unsupported", "UnauthorizedOperation"])
def test_a_wrong_image_type_or_account_is_refused(code: str) -> None:
    service = Troubled()
    service.code = code
    with serving(service) as endpoint, pytest.raises(SubmissionRefused, match=code):
        scheduler(endpoint=endpoint).submit(block())


def test_a_service_in_trouble_passes() -> None:
    service = Troubled()
    service.code, service.words, service.status = "Unavailable", "The service is unavailable", 503
    with serving(service) as endpoint:
        instances = scheduler(endpoint=endpoint)
        requests = (
            lambda: instances.submit(block()),
            lambda: instances.states(["i-0123456789abcdef0"]),
            lambda: instances.cancel(["i-0123456789abcdef0"]),
            lambda: instances.find("psi"),
        )
        for request in requests:
            with pytest.raises(SchedulerUnavailable, match="The service is unavailable"):
                request()
    with pytest.raises(SchedulerUnavailable, match="Could not connect"):
        scheduler(endpoint="http://127.0.0.1:1").find("psi")


class Console:
    """An EC2 whose instance has ended itself, and left its output."""

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, str]:
        said = "ImportError: no module mace\npsiflow: the block has ended with code 3\n"
        if b"GetConsoleOutput" in body:
            text = base64.b64encode(said.encode()).decode()
            return 200, f"<GetConsoleOutputResponse><output>{text}</output></GetConsoleOutputResponse>"
        reason = "<stateReason><code>Client.InstanceInitiatedShutdown</code><message>initiated</message></stateReason>"
        instance = f"<instanceId>i-1</instanceId><instanceState><name>terminated</name></instanceState>{reason}"
        instances = f"<instancesSet><item>{instance}</item></instancesSet>"
        reservations = f"<reservationSet><item>{instances}</item></reservationSet>"
        return 200, f"<DescribeInstancesResponse>{reservations}</DescribeInstancesResponse>"


def test_an_instance_that_ended_itself_has_left_its_exit_code_and_last_words() -> None:
    with serving(Console()) as endpoint:
        assert state(scheduler(endpoint=endpoint), "i-1") == BlockState("ended", "ImportError: no module mace", code=3)


class Metadata:
    """The metadata service of an instance, for those who have asked for a token first."""

    notice = False

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, str]:
        if method == "PUT" and url == "/latest/api/token":
            return 200, "token"
        known = url == "/latest/meta-data/spot/instance-action" and self.notice
        return (200, '{"action": "terminate"}') if known else (404, "")


def test_the_notice_of_a_spot_instance_is_seen() -> None:
    service = Metadata()
    with serving(service) as address:
        look = _request.NOTICE.replace("http://169.254.169.254", address)
        assert subprocess.run(["bash", "-c", look], check=False).returncode != 0
        service.notice = True
        assert subprocess.run(["bash", "-c", look], check=False).returncode == 0


def test_an_account_that_is_not_configured_is_refused_at_once() -> None:
    pool = Pool("pool", Path(), ("python",), 1)
    with pytest.raises(OptionError, match="give region and profile"):
        AWS(image="ami-1", instance_type="c5.xlarge").scheduler(pool)
    with pytest.raises(OptionError, match=r"profile \(mine\)"):
        AWS(**OPTIONS, profile="mine").scheduler(pool)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"image": "ubuntu"}, "image"),
        ({"instance_type": "big"}, "instance_type"),
        ({"nodes": 2}, "one instance"),
        ({"directives": "a"}, "give setup"),
        ({"tags": {"Name": "x"}}, "tags Name are AWS's or psiflow's own"),
        ({"subnet": "a b"}, "subnet"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        psiflow.executor("aws", **{**OPTIONS, **options})

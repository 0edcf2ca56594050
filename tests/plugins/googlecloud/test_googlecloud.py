"""Blocks as instances of Compute Engine: the vendor's client against a stand-in for the service."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from psiflow_googlecloud import _request
from psiflow_googlecloud.executor import GoogleCloud
from psiflow_toys.instances import EXHAUSTED, QUOTA, Engine, Json
from psiflow_toys.service import serving

import psiflow_core as psiflow
from psiflow_core.components import Pool
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block, BlockState, Scheduler, SchedulerUnavailable, SubmissionRefused, set_up

Make = Callable[..., Scheduler]
OPTIONS = {"project": "chem", "zone": "europe-west4-a", "machine_type": "c3-standard-4"}
OPTIONS |= {"image": "projects/chem/global/images/psiflow"}
ROBOT = "robot@chem.iam.gserviceaccount.com"


@pytest.fixture
def scheduler(endpoint: str) -> Make:
    def made(**options: object) -> Scheduler:
        executor = GoogleCloud(**{**OPTIONS, "endpoint": endpoint, **options})
        return executor.scheduler(Pool("pool", Path(), ("python",), 1))

    return made


def block(name: str = "psi12ab-all-0") -> Block:
    return Block(name, ("python3", "-m", "guard", "a  b"), Path("/shared/pool"), secrets={"KEY": "it's"})


def state(instances: Scheduler, name: str) -> BlockState:
    return instances.states([name])[name]


def metadata(instance: Json) -> dict[str, str]:
    return {item["key"]: item["value"] for item in instance["metadata"]["items"]}


def test_an_instance_is_what_the_options_say_and_ends_without_a_driver(engine: Engine, scheduler: Make) -> None:
    instances = scheduler(
        cores=8,
        gpus=1,
        gpu_type="nvidia-tesla-t4",
        machine_type="n1-standard-8",
        spot=True,
        walltime="02:00:00",
        disk=100,
        subnetwork="regions/europe-west4/subnetworks/inner",
        external_address=False,
        service_account=ROBOT,
        labels={"team": "chem"},
        setup="mount /data",
    )
    instance = engine.instances[instances.submit(block())]
    assert instance["machineType"] == "zones/europe-west4-a/machineTypes/n1-standard-8"
    assert instance["guestAccelerators"] == [
        {"acceleratorType": "zones/europe-west4-a/acceleratorTypes/nvidia-tesla-t4", "acceleratorCount": 1}
    ]
    scheduling = instance["scheduling"]
    assert scheduling["provisioningModel"] == "SPOT"
    assert scheduling["instanceTerminationAction"] == "DELETE"
    assert scheduling["automaticRestart"] is False
    assert 7200 < int(scheduling["maxRunDuration"]["seconds"]) < 7500
    (disk,) = instance["disks"]
    assert disk["autoDelete"] is True
    assert disk["initializeParams"]["diskSizeGb"] == "100"
    (network,) = instance["networkInterfaces"]
    assert network == {"subnetwork": "regions/europe-west4/subnetworks/inner"}
    assert instance["serviceAccounts"][0]["email"] == ROBOT
    assert instance["labels"]["team"] == "chem"
    assert instance["labels"]["psiflow-block"] == "psi12ab-all-0"
    script = metadata(instance)["startup-script"]
    assert "export KEY='it'\"'\"'s'\n" in script
    assert "\n".join([*set_up(("mount /data",)), "exec python3 -m guard 'a  b'\n"]) in script
    assert "/projects/chem/zones/europe-west4-a/instances/psi12ab-all-0" in script


def test_a_container_runs_on_an_instance_with_docker(engine: Engine, scheduler: Make) -> None:
    instances = scheduler(container="chem/psiflow:1", binds=["/data"])
    script = metadata(engine.instances[instances.submit(block())])["startup-script"]
    assert "exec docker run --rm --init --network host --env KEY --volume /data:/data chem/psiflow:1 python3" in script


def test_an_instance_waits_and_runs(engine: Engine, scheduler: Make) -> None:
    instances = scheduler()
    name = instances.submit(block())
    assert state(instances, name) == BlockState("waiting", "provisioning")
    engine.instances[name]["status"] = "RUNNING"
    assert state(instances, name) == BlockState("running")
    engine.instances[name]["status"] = "STOPPING"
    assert state(instances, name) == BlockState("running", "stopping")


def test_a_spot_instance_that_was_taken_back_was_interrupted(engine: Engine, scheduler: Make) -> None:
    instances = scheduler(spot=True)
    name = instances.submit(block())
    engine.end(name, "compute.instances.preempted", message="Instance was preempted.")
    assert state(instances, name) == BlockState("ended", "preempted: Instance was preempted.", interrupted=True)


def test_an_instance_that_shut_itself_down_is_deleted(engine: Engine, scheduler: Make) -> None:
    instances = scheduler()
    name = instances.submit(block())
    engine.end(name, "compute.instances.guestTerminate", gone=False)
    for _ in range(2):
        seen = state(instances, name)
        assert (seen.phase, seen.interrupted) == ("ended", False)
        assert "ended itself" in seen.words
        assert engine.instances == {}, "its disk costs money"


def test_who_deleted_an_instance_matters(engine: Engine, scheduler: Make) -> None:
    instances = scheduler(service_account=ROBOT)
    first, second = instances.submit(block("psi12ab-all-0")), instances.submit(block("psi12ab-all-1"))
    engine.end(first, "delete", user=ROBOT)
    engine.end(second, "delete", user="colleague@example.org")
    assert not state(instances, first).interrupted
    assert state(instances, second) == BlockState("ended", "delete (by colleague@example.org)", interrupted=True)
    assert state(instances, "never-was") == BlockState("ended", "Google no longer knows the instance")


def test_a_cancelled_instance_is_gone(engine: Engine, scheduler: Make) -> None:
    instances = scheduler()
    name = instances.submit(block())
    instances.cancel([name, "never-was"])
    assert engine.instances == {}
    assert state(instances, name).interrupted
    instances.cancel([name])  # once more: it is gone


def test_instances_are_found_by_the_tag_of_their_driver(engine: Engine, scheduler: Make) -> None:
    instances = scheduler()
    names = {one: instances.submit(block(one)) for one in ("psi12ab-all-0", "psi12ab-all-1", "psi34cd-all-0")}
    assert instances.find("psi12ab") == {one: name for one, name in names.items() if "12ab" in one}


def test_a_submission_whose_answer_was_lost_is_the_same_instance(engine: Engine, scheduler: Make) -> None:
    instances = scheduler()
    assert instances.submit(block()) == instances.submit(block())
    assert len(engine.instances) == 1


def test_what_is_never_accepted_is_refused_in_the_words_of_the_service(engine: Engine, scheduler: Make) -> None:
    with pytest.raises(SubmissionRefused, match=r"machineType': 'c9-standard-1'. It does not exist"):
        scheduler(machine_type="c9-standard-1").submit(block())
    with pytest.raises(SubmissionRefused, match=r"images/nothing' was not found"):
        scheduler(image="projects/chem/global/images/nothing").submit(block())


@pytest.mark.parametrize("error", [EXHAUSTED, QUOTA], ids=["capacity", "quota"])
def test_a_start_without_quota_or_capacity_passes(engine: Engine, scheduler: Make, error: Json) -> None:
    engine.no_start = error
    with pytest.raises(SchedulerUnavailable, match=error["code"]):
        scheduler().submit(block())


def test_a_service_in_trouble_passes(engine: Engine, scheduler: Make) -> None:
    instances = scheduler()
    name = instances.submit(block())
    engine.trouble = (503, "backendError", "Backend error. Please try again.")
    requests = (
        lambda: instances.submit(block("psi12ab-all-1")),
        lambda: instances.states([name]),
        lambda: instances.cancel([name]),
        lambda: instances.find("psi"),
    )
    for request in requests:
        with pytest.raises(SchedulerUnavailable, match="Backend error"):
            request()
    with pytest.raises(SchedulerUnavailable, match="does not answer"):
        scheduler(endpoint="http://127.0.0.1:1").find("psi")


class Metadata:
    """The metadata service of an instance."""

    preempted = "FALSE"

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, str]:
        return (200, self.preempted) if url == "/computeMetadata/v1/instance/preempted" else (404, "")


def test_the_notice_of_a_spot_instance_is_seen() -> None:
    service = Metadata()
    with serving(service) as address:
        look = _request.NOTICE.replace("http://metadata.google.internal", address)
        assert subprocess.run(["bash", "-c", look], check=False).returncode == 1
        service.preempted = "TRUE"
        assert subprocess.run(["bash", "-c", look], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"zone": "Europe"}, "zone"),
        ({"nodes": 2}, "one instance"),
        ({"directives": "a"}, "give setup"),
        ({"gpu_type": "nvidia-l4"}, "gpu_type needs gpus"),
        ({"labels": {"Team": "x"}}, "no label"),
        ({"image": "a; reboot"}, "image"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        psiflow.executor("googlecloud", **{**OPTIONS, **options})

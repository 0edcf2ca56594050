"""Blocks as pods: the official client against a stand-in for the service."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from psiflow_kubernetes.executor import Kubernetes
from psiflow_toys.pods import FULL, MISSING, Cluster, Json
from psiflow_toys.waiting import PATIENCE, wait_until

import psiflow_core as psiflow
from psiflow_core.components import Pool
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block, BlockState, Scheduler, SchedulerUnavailable, SubmissionRefused
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import IdleRequest

Make = Callable[..., Scheduler]


@pytest.fixture
def scheduler(kubeconfig: str) -> Make:
    def made(container: str = "psiflow:1", **options: object) -> Scheduler:
        executor = Kubernetes(container=container, kubeconfig=kubeconfig, **options)
        return executor.scheduler(Pool("pool", Path(), ("python",), 1))

    return made


def block(name: str = "psi12ab-all-0", *command: str) -> Block:
    return Block(name, command or ("sleep", "60"), Path("/shared/pool"), secrets={"KEY": "$(a)"})


def state(pods: Scheduler, name: str) -> BlockState:
    return pods.states([name])[name]


def test_workers_of_a_context_come_in_pods(cluster: Cluster, kubeconfig: str, tmp_path: Path) -> None:
    executor = psiflow.executor(
        "kubernetes", container="here", kubeconfig=kubeconfig, python=sys.executable, address="127.0.0.1", setup="true"
    )
    with Context(executor, folder=tmp_path / "a pool") as context:
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
        assert len(cluster.pods) == 1
    assert cluster.pods == {}


def test_a_pod_asks_for_what_its_workers_use_and_ends_without_a_driver(cluster: Cluster, scheduler: Make) -> None:
    pods = scheduler(
        cores=4,
        gpus=2,
        memory=16,
        walltime="02:00:00",
        namespace="chem",
        service_account="robot",
        pull_secret="registry",
        volumes={"/shared": "pvc:shared", "/scratch": "/local/ssd"},
        labels={"team": "chem"},
        directives="priorityClassName: low\ntolerations: [{key: gpu, operator: Exists}]",
    )
    name = pods.submit(block("psi12ab-all-0", "python", "-c", "print('$(HOME)')"))
    pod = cluster.pods[name]
    amounts = {"cpu": "4", "memory": "16384Mi", "nvidia.com/gpu": "2"}
    (container,) = pod["spec"]["containers"]
    assert container["resources"] == {"requests": amounts, "limits": amounts}
    assert container["command"] == ["python", "-c", "print('$$(HOME)')"]
    assert container["env"] == [{"name": "KEY", "value": "$$(a)"}]
    assert container["volumeMounts"] == [
        {"name": "volume-0", "mountPath": "/shared"},
        {"name": "volume-1", "mountPath": "/scratch"},
    ]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "shared"}
    assert pod["spec"]["volumes"][1]["hostPath"]["path"] == "/local/ssd"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert 7200 < pod["spec"]["activeDeadlineSeconds"] <= 7260
    assert pod["spec"]["serviceAccountName"] == "robot"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["priorityClassName"] == "low"
    assert pod["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "psiflow"
    assert pod["metadata"]["labels"]["team"] == "chem"


def test_lines_of_set_up_come_before_the_command(cluster: Cluster, scheduler: Make, tmp_path: Path) -> None:
    pods = scheduler("here", setup="export HALF=forty-")
    name = pods.submit(block("psi12ab-all-0", "sh", "-c", f'echo "$HALF$0" > {tmp_path}/said', "two"))
    wait_until(lambda: state(pods, name).phase == "ended")
    assert state(pods, name) == BlockState("ended", code=0)
    assert (tmp_path / "said").read_text() == "forty-two\n"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("psiflow:1", BlockState("running")),
        ("busy", BlockState("waiting", f"Unschedulable: {FULL}")),
        ("starting", BlockState("waiting", "ContainerCreating")),
        ("slow", BlockState("waiting", 'ImagePullBackOff: Back-off pulling image "slow": i/o timeout')),
        ("nothing", BlockState("ended", f"ImagePullBackOff: {MISSING}")),
        ("Wrong", BlockState("ended", 'InvalidImageName: couldn\'t parse image name "Wrong"')),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_pod_that_waits_says_why(cluster: Cluster, scheduler: Make, image: str, expected: BlockState) -> None:
    pods = scheduler(image)
    assert state(pods, pods.submit(block())) == expected


OOM = {"exitCode": 137, "reason": "OOMKilled"}
ERROR = {"exitCode": 3, "reason": "Error", "message": "Traceback:\nImportError: no module mace"}
EVICTED = {"reason": "Evicted", "message": "The node was low on resource: memory."}
DEADLINE = {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting"}


@pytest.mark.parametrize(
    ("container", "status", "expected"),
    [
        ({"exitCode": 0, "reason": "Completed"}, {}, BlockState("ended", code=0)),
        (ERROR, {}, BlockState("ended", "Traceback: | ImportError: no module mace", code=3)),
        (OOM, {}, BlockState("ended", "OOMKilled", code=137)),
        (None, EVICTED, BlockState("ended", f"Evicted: {EVICTED['message']}", interrupted=True)),
        (
            {"exitCode": 143},
            DEADLINE,
            BlockState("ended", f"DeadlineExceeded: {DEADLINE['message']}", interrupted=True),
        ),
        (
            {"exitCode": 143, "reason": "Error"},
            {"conditions": [DISRUPTED]},
            BlockState("ended", "PreemptionByScheduler: preempting", interrupted=True),
        ),
    ],
    ids=["completed", "failed", "out of memory", "evicted", "deadline", "preempted"],
)
def test_the_end_of_a_pod_says_who_ended_it(
    cluster: Cluster, scheduler: Make, container: Json | None, status: Json, expected: BlockState
) -> None:
    pods = scheduler()
    name = pods.submit(block())
    cluster.end(name, container, **status)
    assert state(pods, name) == expected


def test_a_deleted_pod_was_interrupted(cluster: Cluster, scheduler: Make) -> None:
    pods = scheduler()
    name = pods.submit(block())
    pods.cancel([name, "never-was"])
    assert state(pods, name) == BlockState("ended", "the pod was deleted", interrupted=True)
    pods.cancel([name])  # once more: it is gone


def test_pods_are_found_by_the_tag_of_their_driver(cluster: Cluster, scheduler: Make) -> None:
    pods = scheduler()
    names = {one: pods.submit(block(one)) for one in ("psi12ab-all-0", "psi12ab-all-1", "psi34cd-all-0")}
    cluster.end(names["psi12ab-all-1"], {"exitCode": 0, "reason": "Completed"})
    assert pods.find("psi12ab") == {"psi12ab-all-0": names["psi12ab-all-0"]}


def test_a_pod_that_ended_long_ago_is_deleted(cluster: Cluster, scheduler: Make) -> None:
    pods = scheduler()
    old, new = pods.submit(block("psi12ab-all-0")), pods.submit(block("psi12ab-all-1"))
    cluster.end(old, {"exitCode": 0, "reason": "Completed", "finishedAt": "2020-01-01T00:00:00Z"})
    assert state(pods, new).phase == "running"
    assert set(cluster.pods) == {new}


def test_a_pod_that_does_not_tell_when_it_ended_is_kept(cluster: Cluster, scheduler: Make) -> None:
    pods = scheduler()
    name = pods.submit(block())
    cluster.end(name, **EVICTED)
    assert state(pods, name) == state(pods, name)


def test_a_submission_whose_answer_was_lost_is_the_same_pod(cluster: Cluster, scheduler: Make) -> None:
    pods = scheduler()
    assert pods.submit(block()) == pods.submit(block())
    assert len(cluster.pods) == 1


def test_what_is_never_accepted_is_refused_in_the_words_of_the_service(cluster: Cluster, scheduler: Make) -> None:
    with pytest.raises(SubmissionRefused, match='namespaces "nowhere" not found'):
        scheduler(namespace="nowhere").submit(block())
    with pytest.raises(SubmissionRefused, match='serviceaccount "stranger" not found'):
        scheduler(service_account="stranger").submit(block())


def test_a_quota_and_a_service_in_trouble_pass(cluster: Cluster, scheduler: Make) -> None:
    cluster.quota = 1
    pods = scheduler()
    name = pods.submit(block())
    with pytest.raises(SchedulerUnavailable, match="exceeded quota"):
        pods.submit(block("psi12ab-all-1"))
    cluster.trouble = (503, "ServiceUnavailable", "the server is currently unable to handle the request")
    requests = (
        lambda: pods.submit(block("psi12ab-all-2")),
        lambda: pods.states([name]),
        lambda: pods.cancel([name]),
        lambda: pods.find("psi"),
    )
    for request in requests:
        with pytest.raises(SchedulerUnavailable, match="currently unable"):
            request()
    cluster.trouble = None
    assert state(pods, name).phase == "running"


def test_a_service_that_is_gone_does_not_answer(kubeconfig: str, address: str, tmp_path: Path) -> None:
    file = tmp_path / "nowhere"
    file.write_text(Path(kubeconfig).read_text().replace(address, "http://127.0.0.1:1"))
    pods = Kubernetes(container="a", kubeconfig=str(file)).scheduler(Pool("pool", Path(), ("python",), 1))
    with pytest.raises(SchedulerUnavailable, match="does not answer"):
        pods.find("psi")


def test_a_cluster_that_no_file_describes_is_refused_at_once(kubeconfig: str) -> None:
    pool = Pool("pool", Path(), ("python",), 1)
    with pytest.raises(OptionError, match="finds no cluster"):
        Kubernetes(container="a", kubeconfig="/nowhere/config").scheduler(pool)
    with pytest.raises(OptionError, match="finds no cluster"):
        Kubernetes(container="a", kubeconfig=kubeconfig, context="elsewhere").scheduler(pool)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "container"),
        ({"container": "a", "nodes": 2}, "a block is one pod"),
        ({"container": "a", "volumes": {"shared": "pvc:x"}}, "give an absolute path"),
        ({"container": "a", "volumes": {"/shared": "shared"}}, "pvc:NAME"),
        ({"container": "a", "labels": {"team": "a b"}}, "not the value of a label"),
        (
            {
                "container": "a",
                "directives": "hostNetwork: [",
            },
            "not YAML",
        ),
        ({"container": "a", "directives": "restartPolicy: Always"}, "directives set restartPolicy"),
        ({"container": "a", "binds": ["/a"]}, "give volumes"),
        ({"container": "a", "shared": True}, "needs volumes"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        psiflow.executor("kubernetes", **options)

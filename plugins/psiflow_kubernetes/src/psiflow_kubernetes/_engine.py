"""Pods, by the official client."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block, BlockState, Scheduler, SchedulerUnavailable, SubmissionRefused
from psiflow_kubernetes import _pod, _states
from psiflow_kubernetes.options import KubernetesOptions

logger = logging.getLogger("psiflow.pools")

DEADLINE = (5.0, 30.0)
"""How long a connection and an answer may take. [s]"""

REFUSED = {
    *(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND),
    *(HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNPROCESSABLE_ENTITY),
}
"""Answers to a pod that no repetition changes; `FORBIDDEN` because of a quota does change."""

KEPT = 3600.0
"""A pod that has ended is kept so long, for `kubectl logs`. [s]"""


class Pods(Scheduler):
    """One pod for each block. Its id is its name: namespaces belong to the executor's options."""

    interval = 5.0

    def __init__(self, options: KubernetesOptions) -> None:
        self._options = options
        self._api = client.CoreV1Api(_client(options))

    def submit(self, block: Block) -> str:
        try:
            self._ask(self._api.create_namespaced_pod, body=_pod.manifest(self._options, block))
        except client.ApiException as error:
            if error.status == HTTPStatus.CONFLICT and _reason(error) == "AlreadyExists":
                return _pod.name(block)  # of this block: an earlier answer was lost
            words = _words(error)
            if error.status in REFUSED and "quota" not in words:
                raise SubmissionRefused(words) from error
            raise SchedulerUnavailable(words) from error
        return _pod.name(block)

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        if not ids:
            return {}
        pods = self._pods()
        gone = BlockState("ended", "the pod was deleted", interrupted=True)
        found = {job: _states.state(pods[job]) if job in pods else gone for job in ids}
        self._delete([name for name, pod in pods.items() if _is_old(pod)])
        return found

    def cancel(self, ids: Collection[str]) -> None:
        self._delete(ids)

    def find(self, tag: str) -> Mapping[str, str]:
        pods = {name: pod for name, pod in self._pods().items() if not _states.has_ended(pod)}
        names = {pod["metadata"].get("annotations", {}).get(_pod.BLOCK, ""): name for name, pod in pods.items()}
        return {block: name for block, name in names.items() if block.startswith(tag)}

    def _pods(self) -> dict[str, dict[str, Any]]:
        """This user's pods, by name."""
        ours = ",".join(f"{key}={value}" for key, value in {**_pod.OURS, _pod.USER: _pod.user()}.items())
        try:
            answer = self._ask(self._api.list_namespaced_pod, label_selector=ours)
        except client.ApiException as error:
            raise SchedulerUnavailable(_words(error)) from error
        return {pod["metadata"]["name"]: pod for pod in json.loads(answer)["items"]}

    def _delete(self, names: Collection[str]) -> None:
        for name in names:
            try:
                self._ask(self._api.delete_namespaced_pod, name=name)
            except client.ApiException as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise SchedulerUnavailable(_words(error)) from error

    def _ask(self, request: Callable[..., Any], **given: Any) -> bytes:
        """The answer of the service, as it is: the client refuses answers of versions that it does not know.

        Raises:
            SchedulerUnavailable: there is none.
            ApiException: it is an error.
        """
        try:
            place = self._options.namespace
            answer = request(namespace=place, _request_timeout=DEADLINE, _preload_content=False, **given)
            return bytes(answer.data)
        except HTTPError as error:
            raise SchedulerUnavailable(f"the Kubernetes service does not answer: {error}") from error


def _client(options: KubernetesOptions) -> client.ApiClient:
    """A client of the cluster that the options name.

    Raises:
        OptionError: there is no such kubeconfig, or no such context in it.
    """
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and not (options.context or options.kubeconfig)
    found = client.Configuration()
    try:
        if inside:
            config.load_incluster_config(client_configuration=found)
        else:
            file, context = options.kubeconfig or None, options.context or None
            config.load_kube_config(file, context, client_configuration=found)
    except (config.ConfigException, OSError) as error:
        raise OptionError(
            f"executor 'kubernetes' finds no cluster: {error}; give kubeconfig and context, or run `kubectl get pods`"
        ) from error
    found.retries = False  # the caller repeats requests, and shows why
    return client.ApiClient(found)


def _reason(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body).get("reason", ""))
    except (TypeError, ValueError, AttributeError):
        return ""


def _words(error: client.ApiException) -> str:
    """The service's own words."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"the Kubernetes service answers {error.status} {error.reason}"


def _is_old(pod: Mapping[str, Any]) -> bool:
    """Whether a pod ended long ago."""
    since = _states.ended_at(pod)
    return since is not None and (datetime.now(UTC) - since).total_seconds() > KEPT

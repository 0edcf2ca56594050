"""Instances of Compute Engine, by the vendor's client."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound, RetryError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import compute_v1
from requests.exceptions import RequestException

from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block, BlockState, Scheduler, SchedulerUnavailable, SubmissionRefused
from psiflow_googlecloud import _ends, _request
from psiflow_googlecloud.options import GoogleCloudOptions

DEADLINE = 30.0
"""How long an answer may take. [s]"""

BEGINNING = 60.0
"""How long the start of an instance is watched for its failure: no quota, no capacity. [s]"""

LOOK = 1.0
"""Time between two looks at it. [s]"""

WAITING = {"PROVISIONING", "STAGING"}
ENDED = {"TERMINATED", "STOPPED", "SUSPENDED"}

LATER = re.compile(r"quota|exhausted|capacity|stockout|rate ?limit|rate_exceeded|try again|internal_?error", re.I)
"""Words of a failure that passes."""


class Instances(Scheduler):
    """One instance for each block. Its id is its name: project and zone belong to the executor's options."""

    interval = 15.0

    def __init__(self, options: GoogleCloudOptions) -> None:
        self._options = options
        given = _client_options(options)
        try:
            self._instances = compute_v1.InstancesClient(**given)
            self._operations = compute_v1.ZoneOperationsClient(**given)
        except DefaultCredentialsError as error:
            raise OptionError(
                f"executor 'googlecloud' finds no credentials: {error}; run `gcloud auth application-default login`"
            ) from error
        self._place = {"project": options.project, "zone": options.zone}

    def submit(self, block: Block) -> str:
        given = {"instance_resource": compute_v1.Instance(_request.request(self._options, block))}
        try:
            self._watch(self._ask(self._instances.insert_unary, **self._place, **given))
        except Conflict:
            pass  # it is this block's: an earlier answer was lost
        except GoogleAPICallError as error:
            raise _failure(error) from error
        return _request.name(block)

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        if not ids:
            return {}
        known = self._listed()
        found = {job: self._state(job, known[job].status if job in known else "") for job in ids}
        self.cancel([job for job in ids if job in known and known[job].status in ENDED])  # its disk costs money
        return found

    def cancel(self, ids: Collection[str]) -> None:
        for job in ids:
            try:
                self._ask(self._instances.delete_unary, **self._place, instance=job)
            except NotFound:
                pass
            except GoogleAPICallError as error:
                raise SchedulerUnavailable(_words(error)) from error

    def find(self, tag: str) -> Mapping[str, str]:
        """Those that are stopped, too: they wait for their deletion."""
        named = {_block(instance): job for job, instance in self._listed().items()}
        return {name: job for name, job in named.items() if name.startswith(tag)}

    def _listed(self) -> dict[str, Any]:
        """This user's instances, by name."""
        try:
            found = self._all(self._instances.list, f"labels.{_request.OURS}={_request.user()}")
            return {one.name: one for one in found}
        except GoogleAPICallError as error:
            raise SchedulerUnavailable(_words(error)) from error

    def _state(self, job: str, status: str) -> BlockState:
        if status in WAITING:
            return BlockState("waiting", status.lower())
        if status and status not in ENDED:
            return BlockState("running", "" if status == "RUNNING" else status.lower())
        return _ends.end(self._done_to(job), self._options.service_account)

    def _done_to(self, job: str) -> list[_ends.Operation]:
        link = f"https://www.googleapis.com{_request.link(self._options, job)}"
        try:
            found = self._all(self._operations.list, f'targetLink = "{link}"')
        except GoogleAPICallError as error:
            raise SchedulerUnavailable(_words(error)) from error
        return [_ends.Operation(one.operation_type, one.user, one.status_message, one.insert_time) for one in found]

    def _watch(self, operation: Any) -> None:
        """Watch the start of an instance; its failure is raised. An instance that takes long is left to itself."""
        deadline = time.monotonic() + BEGINNING
        while operation.status != compute_v1.Operation.Status.DONE and time.monotonic() < deadline:
            time.sleep(LOOK)
            operation = self._ask(self._operations.get, **self._place, operation=operation.name)
        if operation.http_error_status_code or operation.error.errors:
            codes = "; ".join(f"{one.message} ({one.code})" for one in operation.error.errors)
            words = codes or operation.http_error_message
            raise (SchedulerUnavailable if LATER.search(words) else SubmissionRefused)(words)

    def _all(self, call: Callable[..., Any], wanted: str) -> list[Any]:
        """Every page of a list, as far as a filter chooses its items."""
        return list(self._ask(lambda **given: list(call(**given)), request={**self._place, "filter": wanted}))

    def _ask(self, call: Callable[..., Any], **given: Any) -> Any:
        """The answer of the service.

        Raises:
            SchedulerUnavailable: there is none.
            GoogleAPICallError: it is an error.
        """
        try:
            return call(**given, timeout=DEADLINE, retry=None)
        except (RequestException, GoogleAuthError, RetryError) as error:
            raise SchedulerUnavailable(f"Compute Engine does not answer: {error}") from error


def _client_options(options: GoogleCloudOptions) -> dict[str, Any]:
    """A service without encryption is a local one, and gets no credentials."""
    given: dict[str, Any] = {"client_options": {"api_endpoint": options.endpoint}} if options.endpoint else {}
    return {**given, "credentials": AnonymousCredentials()} if options.endpoint.startswith("http://") else given


def _block(instance: Any) -> str:
    """The name of an instance's block."""
    return next((str(item.value) for item in instance.metadata.items if item.key == _request.BLOCK), "")


def _words(error: GoogleAPICallError) -> str:
    """The service's own words, and its reason."""
    reasons = [str(one.get("reason", "")) for one in error.errors or () if isinstance(one, dict)]
    return f"{error.message} ({', '.join(reasons)})" if any(reasons) else str(error.message)


def _failure(error: GoogleAPICallError) -> SchedulerUnavailable | SubmissionRefused:
    """The error of a submission."""
    words = _words(error)
    passes = error.code is None or error.code >= 500 or error.code == 429 or LATER.search(words)
    return SchedulerUnavailable(words) if passes else SubmissionRefused(words)

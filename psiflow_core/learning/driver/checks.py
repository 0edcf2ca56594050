"""Checks of a campaign's components by workers, before anything is computed."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from psiflow_core.components import Spec
from psiflow_core.environments.description import MUST_AGREE
from psiflow_core.environments.environment import choose
from psiflow_core.errors import CampaignError
from psiflow_core.execution.failures import ATTEMPTS, MACHINE
from psiflow_core.execution.hosts import host_of
from psiflow_core.execution.tasks.check import CheckRequest
from psiflow_core.execution.tasks.request import Outcome, Work
from psiflow_core.execution.workers import Workers
from psiflow_core.learning.driver.orders import Orders
from psiflow_core.learning.driver.request import Campaign
from psiflow_core.learning.machine.sessions import Home
from psiflow_core.structures import isolated_atom


def check(campaign: Campaign, orders: Orders, workers: Workers, show: Callable[[str], None]) -> None:
    """Ask a worker of each kind whether its component works there with these structures.

    All pools are asked at once. A queue of a batch system may take a day: that is waited for.

    Args:
        show: is told which workers are waited for.

    Raises:
        PsiflowError: the component's objection.
        PoolFailed: workers do not start.
    """
    requests = {str(number): request for number, request in enumerate(_requests(campaign, orders))}
    workers.start([(work, needs) for work, needs in needed(campaign)])
    desk, attempts = workers.desk(), Counter[str]()
    try:
        for key, request in requests.items():
            desk.submit(key, request)
        while not desk.empty:
            for outcome in desk.completed():
                if not _is_lost(outcome, attempts):
                    _refuse(outcome)
                else:
                    desk.submit(outcome.key, requests[outcome.key], first=True)
            if waiting := workers.waiting():
                show(waiting)
    finally:
        desk.abandon()


def _requests(campaign: Campaign, orders: Orders) -> Iterator[CheckRequest]:
    atoms = [isolated_atom(symbol) for symbol in campaign.species]
    given = (*campaign.start, *campaign.test)
    for work, (component, *others) in needed(campaign):
        setting_off = orders.departures() if work == "sample" else [(component, None)]
        for first, departure in setting_off:
            yield CheckRequest(
                component=first,
                beside=tuple(others),
                structures=(*given, *atoms) if work == "label" else given,
                departure=departure,
            )


def _is_lost(outcome: Outcome, attempts: Counter[str]) -> bool:
    """Whether a worker was lost over a check, and another one is asked."""
    reason = outcome.failure.reason if outcome.failure is not None else ""
    attempts[outcome.key] += reason in MACHINE
    return outcome.is_cut or (reason in MACHINE and attempts[outcome.key] < ATTEMPTS)


def _refuse(outcome: Outcome) -> None:
    """Raise the component's objection; on another host, the host may be to blame."""
    failed, host = outcome.failure, host_of(outcome.worker)
    if failed is None:
        return
    where = "" if host in ("", socket.gethostname()) else f" (seen on host {host})"
    raise failed.model_copy(update={"message": f"{failed.message}{where}"}).error(CampaignError)


def homes(campaign: Campaign) -> tuple[Home, ...]:
    """The environments of the campaign's components; raises `PluginNotFound`."""
    return tuple(_home(needs) for _, needs in needed(campaign))


def needed(campaign: Campaign) -> list[tuple[Work, tuple[Spec, ...]]]:
    """The components that tasks of each kind of work need in one environment; the first of them is checked."""
    checks: list[tuple[Work, tuple[Spec, ...]]] = [("label", (campaign.reference,))]
    acting = [part for spec in campaign.policies[1:] for part in spec.all]
    checks += [("sample", (campaign.sampler, potential, *acting)) for potential in campaign.potentials]
    return [*checks, *(("train", (potential,)) for potential in campaign.potentials)]


def _home(needs: Sequence[Spec]) -> Home:
    """Where components run that are needed together; raises `PluginNotFound`."""
    environment = choose(needs)
    plugins = {spec.distribution: spec.version for spec in needs}
    return Home(
        components=tuple(f"{spec.kind} {spec.name}" for spec in needs),
        environment=environment.name,
        launch=tuple(environment.launch),
        versions={name: environment.description[name] for name in MUST_AGREE} | plugins,
    )

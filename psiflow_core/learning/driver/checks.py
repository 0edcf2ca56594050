"""Checks of a campaign's components by workers, before anything is computed."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from psiflow_core.components import Spec
from psiflow_core.environments.description import MUST_AGREE
from psiflow_core.environments.environment import choose
from psiflow_core.errors import CampaignError, PoolFailed, PsiflowError
from psiflow_core.execution.failures import ATTEMPTS, MACHINE, Failure
from psiflow_core.execution.hosts import host_of, of_host
from psiflow_core.execution.tasks.check import CheckRequest
from psiflow_core.execution.tasks.request import Outcome, Work
from psiflow_core.execution.workers import Workers
from psiflow_core.learning.driver.orders import Orders
from psiflow_core.learning.driver.request import Campaign
from psiflow_core.learning.machine.sessions import Home
from psiflow_core.structures import isolated_atom
from psiflow_core.texts import one_line

SAID = 300
"""Characters of an objection that are shown while another host is waited for."""


def check(campaign: Campaign, orders: Orders, workers: Workers, show: Callable[[str], None]) -> None:
    """Ask a worker of each kind whether its component works there with these structures.

    All pools are asked at once. A queue of a batch system may take a day: that is waited for. If a host may be bad
    itself, it is excluded, and another one is asked.

    Args:
        show: is told which workers are waited for, and why.

    Raises:
        PsiflowError: the component's objection; if the host may be to blame, that of two hosts, or of the only one.
        PoolFailed: workers do not start.
    """
    requests = {str(number): request for number, request in enumerate(_requests(campaign, orders))}
    workers.start([(work, needs) for work, needs in needed(campaign)])
    desk, objections = workers.desk(), Objections()
    try:
        for key, request in requests.items():
            desk.submit(key, request)
        while not desk.empty:
            for key, ended in desk.ended():
                if objections.again(key, ended):
                    workers.exclude(objections.hosts)
                    desk.submit(key, requests[key], first=True)
            if waiting := workers.waiting():
                show("; ".join([waiting, *objections.told]))
    except PsiflowError:
        workers.readmit(objections.hosts)
        raise
    finally:
        desk.abandon()


class Objections:
    """The objections of components: which of them may be the fault of a host, and which are final."""

    def __init__(self) -> None:
        self._lost = Counter[str]()
        """By check: how often its worker was lost."""
        self._doubtful: dict[str, tuple[Failure, str]] = {}
        """By check: the objection on a host that may be bad, and the host."""

    @property
    def hosts(self) -> set[str]:
        """Hosts that may be bad."""
        return {host for _, host in self._doubtful.values()}

    @property
    def told(self) -> Iterator[str]:
        """The doubtful objections, for people."""
        for failed, host in self._doubtful.values():
            yield f"on host {host}: {one_line(failed.told, SAID)}; another host is asked"

    def again(self, key: str, ended: Outcome | PoolFailed) -> bool:
        """Whether a check has to be repeated, on another host than `hosts`.

        Raises:
            PsiflowError: the objection is final.
        """
        if isinstance(ended, PoolFailed):
            if key in self._doubtful:
                raise _error(*self._doubtful[key], f"; no other host can be asked: {ended}") from ended
            raise ended
        failed, host = ended.failure, host_of(ended.worker)
        if failed is None:
            self._doubtful.pop(key, None)
            return False
        self._lost[key] += failed.reason in MACHINE
        if ended.is_cut or (failed.reason in MACHINE and self._lost[key] < ATTEMPTS):
            return True
        if host in ("", socket.gethostname()):
            raise failed.error(CampaignError)
        if key in self._doubtful or not of_host(failed.type, failed.reason):
            before = self._doubtful.get(key)
            raise _error(failed, host, f", and on {before[1]} before" if before is not None else "")
        self._doubtful[key] = failed, host
        return True


def _error(failed: Failure, host: str, more: str = "") -> PsiflowError:
    """An objection that was seen on another host than the driver's, which may be to blame."""
    message = f"{failed.message} (seen on host {host}{more})"
    return failed.model_copy(update={"message": message}).error(CampaignError)


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

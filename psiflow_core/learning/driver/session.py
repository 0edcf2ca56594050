"""One driver's session on a campaign, between opening the journal and closing it."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterator, Sequence

from psiflow_core.errors import CampaignError
from psiflow_core.execution.desk import Desk
from psiflow_core.execution.hosts import host_of
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.execution.workers import Workers
from psiflow_core.labels.given import check_zero
from psiflow_core.learning.driver.checks import check, homes
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.history import History
from psiflow_core.learning.driver.inputs import Inputs
from psiflow_core.learning.driver.integrity import damage, mend_structures, no_disk, tell, unknown_labels, unreadable
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.late import Late, await_files
from psiflow_core.learning.driver.orders import Order, Orders
from psiflow_core.learning.driver.outcomes import Outcomes
from psiflow_core.learning.driver.request import Campaign
from psiflow_core.learning.driver.supply import Supply, resolved
from psiflow_core.learning.driver.waiting import Waiting, is_computed_elsewhere
from psiflow_core.learning.machine.events import (
    Adopted,
    Closing,
    Damaged,
    Finished,
    Interrupted,
    Labelled,
    Opened,
    Proposed,
    Started,
)
from psiflow_core.learning.machine.planning import plan
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import Task
from psiflow_core.learning.machine.termination import conclusion, exhausted, still_closing

LOOK = 1.0
"""How long a session waits for workers before it checks for other work. [s]"""


class Session:
    """Starts the planned tasks and records their outcomes."""

    def __init__(self, campaign: Campaign, store: Store, journal: Journal, context: Workers, desk: Desk) -> None:
        self._campaign = campaign
        self._store = store
        self._journal = journal
        self._context = context
        self._desk = desk
        self.settings = resolved(campaign, context)
        self.orders = Orders(
            campaign.potentials, campaign.sampler, campaign.reference, self.settings, store, campaign.start
        )
        self._outcomes = Outcomes(self.orders, self.settings, store, campaign.potentials)
        self._sent: dict[str, Order] = {}
        self._held: list[Outcome] = []
        self._cut: list[Outcome] = []
        """Outcomes of tasks that ended with their block."""
        self._looked = False
        """Whether the search for labels without a candidate is done."""
        self._inputs = Inputs(campaign, store)
        self._waiting = Waiting()
        self._late = Late()
        self._zero_is_known = not campaign.data
        self._history = History(journal, self.settings, campaign.configuration(), store.folder)
        self.state = self._history.state
        self._supply = Supply(context, desk, self._history.log, store.folder)
        self._open()

    def check(self, show: Callable[[str], None]) -> None:
        """Check on workers that the components work with these structures; see `checks.check`."""
        check(self._campaign, self.orders, self._context, self._supply.reporting(show))

    def propose(self) -> None:
        """Record the inputs before the first task: atoms, structures, and a given model."""
        first = self._inputs.candidates(self.settings)  # in every session: lost files are restored
        if not self.state.candidates:
            self._history.append(Proposed(candidates=tuple(first)))
        else:
            self._inputs.tell_anew()
        self._drop_unreadable()
        model = self._inputs.model()
        if model is not None and not self.state.generations:
            self._history.append(Adopted(members=tuple(self._inputs.adopted(member) for member in model.members)))

    def _drop_unreadable(self) -> None:
        """Drop candidates without a label whose structure is lost."""
        lost = unreadable(self.state, self._store)
        if not lost:
            return
        files = [self._inputs.file_of(candidate.structure) for candidate in lost]
        tell(self._store.folder, files, "these structures had no label yet, and are no longer candidates")
        self._history.append(Damaged(files=tuple(files), structures=tuple(candidate.id for candidate in lost)))

    def events(self) -> Iterator[None]:
        """Start tasks, wait, record outcomes; yields after every change, and ends with the campaign."""
        for task in list(self.state.running.values()):
            self._history.log.restarted(task.id, self.state.attempts[task.id])
            self._submit(self.orders.order(task, self.state))
        with self._journal.together():
            self._go_on()
        while self.state.finished is None:
            self._supply.report()
            yield
            self._journal.confirm()
            for order in self._waiting.over():
                self._submit(order)
            outcomes = self._next_outcomes()
            with self._journal.together():  # one wait for the disk, after workers have their next tasks
                self._write_down(outcomes)
                self._go_on()
        yield

    @property
    def under_way(self) -> bool:
        """Whether workers are running tasks."""
        return self._desk.under_way + len(self._late) > 0

    def stop_sending(self) -> None:
        """Send no more tasks to workers: those that wait for one are left to the next session."""
        self._desk.withdraw()

    def wind_down(self) -> None:
        """Wait a moment, and record the tasks that have ended; start none."""
        outcomes = self._next_outcomes()
        with self._journal.together():
            self._write_down(outcomes)

    def _go_on(self) -> None:
        self._check_zero()
        self._start_planned()
        self._conclude()

    def _check_zero(self) -> None:
        """After the free atoms are labelled, and before the first training: check that the data have the same zero.

        Raises:
            CampaignError: the data have another zero of energy.
        """
        atoms = self.state.of("atom")
        if not self._zero_is_known and atoms and all(atom.status == "labelled" for atom in atoms):
            self._zero_is_known = True
            check_zero(self._campaign.data, self.orders.atomic_energies(self.state))

    def _write_down(self, outcomes: Sequence[Outcome]) -> None:
        cut, self._cut = self._cut, []
        for outcome in (*cut, *outcomes):
            order = self._sent.pop(outcome.key)
            what = self._outcomes.event(order, outcome, self.state)
            if isinstance(what, Labelled):
                self._journal.relies_on(self._store.absolute(what.file))  # workers need not wait for the disk
            self._history.append(what)
            if isinstance(what, Interrupted) and not what.requeued:
                self._submit(order, first=True)
        self._supply.exclude(self.state.hosts.excluded)

    def _settled(self, order: Order, outcome: Outcome) -> Outcome:
        """The final outcome of a task: a lost worker may have finished it before.

        Raises:
            CampaignError: the disk is full.
        """
        if outcome.failure is None:
            return outcome
        if outcome.failure.reason == "disk" and not self.state.hosts.is_remote(host_of(outcome.worker)):
            raise no_disk(self._store.folder, outcome.failure.message)
        return self.orders.known(order) or outcome

    def _start_planned(self) -> None:
        capacity = self._context.capacity
        while True:
            reason = exhausted(self.state, self.settings)
            if reason and self.state.closing is None:
                if self._takes_back():
                    continue
                self._history.append(Closing(reason=reason))
            tasks = plan(self.state, self.settings, capacity.pool_of, capacity.slots, self._waiting)
            if self.settings.schedule == "concurrent":
                tasks = self._supply.affordable(tasks)
            if not tasks:
                return
            if any(map(self._pays_for, tasks)) and self._takes_back():
                continue
            for task in tasks:
                self._history.append(Started(task=task))
                self._submit(self.orders.order(task, self.state))

    def _pays_for(self, task: Task) -> bool:
        """Whether a task needs a new computation of a label; checked once per session."""
        if self._looked or task.kind != "label":
            return False
        return self.orders.known(self.orders.order(task, self.state)) is None

    def _takes_back(self) -> bool:
        """Use labels in the store that the journal has lost, before computing more or ending the campaign.

        This comes last: a driver that finds the results of its tasks again proposes their structures itself.

        Returns:
            Whether such labels exist.
        """
        if self._looked:
            return False
        self._looked = True
        files = list(unknown_labels(self.state, self._store, self._campaign.reference))
        if files:
            count = "1 label" if len(files) == 1 else f"{len(files)} labels"
            warnings.warn(
                f"{count} in {self._store.folder} missing from the journal: used, and not computed again",
                stacklevel=2,
            )
            self._history.append(Proposed(candidates=tuple(self._outcomes.taken_back(file) for file in files)))
        return bool(files)

    def _submit(self, order: Order, first: bool = False) -> None:
        """Submit a task, unless its outcome exists already."""
        self._sent[order.task.id] = order
        known = self.orders.known(order)
        if known is not None:
            self._history.log.found(order.task.id)
            self._held.append(known)
        else:
            self._desk.submit(order.task.id, order.request, first, self.state.longest[order.task.kind])

    def _next_outcomes(self) -> list[Outcome]:
        """Outcomes of ended tasks. A sequential campaign records a phase at its end, in the order of its tasks."""
        if self._held and self.settings.schedule == "concurrent":
            held, self._held = self._held, []
            return held
        if len(self._held) < len(self.state.running) or not self.state.running:
            ended = list(self._arrived())
            if self.settings.schedule == "concurrent":
                return ended
            self._held += ended
        if len(self._held) < len(self.state.running):
            return []
        held, self._held = self._held, []
        return sorted(held, key=lambda outcome: outcome.key)

    def _arrived(self) -> Iterator[Outcome]:
        """Outcomes from workers. Labels that another campaign is computing are waited for here."""
        if self._desk.empty:
            self._supply.wait()
        yield from self._late.over()
        for outcome in self._desk.completed(LOOK):
            order = self._sent[outcome.key]
            if self._late.takes(order.request, outcome):
                continue
            if (outcome := self._settled(order, outcome)).is_cut:
                self._cut.append(outcome)
            elif is_computed_elsewhere(outcome):
                self._history.log.waits(order.task.id, self._waiting.add(order))
            else:
                yield outcome

    def _conclude(self) -> None:
        end = conclusion(self.state, self.settings)
        if end is not None:
            self._history.append(Finished(reason=end[0], message=end[1]))
        elif not self.state.running and not self._desk.busy:
            raise CampaignError(
                "no task is left, but the campaign has not ended: this is a defect of psiflow; "
                f"please report it with {self._store.journal_file}"
            )

    def _open(self) -> None:
        """Check and repair the files of the campaign, and record this session in the journal."""
        state = self.state
        await_files(state, self._store)
        if state.candidates:  # damaged ones are restored from the request
            self._inputs.restore()
        mended = mend_structures(state, self._store, self._campaign.reference)
        tell(self._store.folder, mended, "restored from their labels")
        lost = damage(state, self._store)
        tell(self._store.folder, lost.files if lost else [], "computed again")
        if lost or state.finished in (None, "failed") or exhausted(state, self.settings) is None:
            self._history.append(self._begun(state))
        if lost:
            self._history.append(lost)

    def _begun(self, state: State) -> Opened:
        damaged = self._journal.damaged
        return Opened(
            configuration=self._campaign.configuration(),
            versions=self._campaign.versions(),
            context=self._context.describe(),
            homes=homes(self._campaign),
            slots=self._context.capacity.slots,
            host=socket.gethostname(),
            clock=self._journal.clock,
            closing=still_closing(state, self.settings),
            damaged=None if damaged is None else damaged.name,
        )

"""One driver's session on a campaign, between opening the journal and closing it."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ase import Atoms

from psiflow_core.components import Spec
from psiflow_core.context import Context, Outcome, Work
from psiflow_core.environments import choose
from psiflow_core.errors import (
    CampaignError,
    EngineMissing,
    ModelCorrupt,
    OptionError,
    PluginBroken,
    PsiflowError,
    StructureError,
    WrongAnswer,
)
from psiflow_core.journal import Journal
from psiflow_core.learning.campaign import State, Task
from psiflow_core.learning.damage import damage, mend_structures, tell, unknown_labels, unreadable
from psiflow_core.learning.dispatch import Dispatch, Order
from psiflow_core.learning.ending import conclusion, exhausted, still_closing
from psiflow_core.learning.events import apply, fold
from psiflow_core.learning.given import check_zero
from psiflow_core.learning.planning import plan
from psiflow_core.learning.records import Campaign, refuse_other, sessions
from psiflow_core.learning.settings import Settings
from psiflow_core.learning.stopping import ATTEMPTS, MACHINE
from psiflow_core.learning.waiting import Waiting
from psiflow_core.models import Member, TrainedPotential
from psiflow_core.offers import MUST_AGREE
from psiflow_core.sampling import batch_size
from psiflow_core.store import Store
from psiflow_core.structures import Plain, digest, isolated_atom, to_plain, with_label
from psiflow_core.structures import label_of as label_in
from psiflow_core.tasks import has_label, structure_file, told, write_label

LOOK = 1.0
"""How long a session waits for workers, before it looks at what else there is. [s]"""

CHECK_PATIENCE = 600.0
"""How long workers may take to start and to answer a check: a batch system may let them wait. [s]"""


class Session:
    """Starts what the plan says, and writes down what comes back."""

    def __init__(self, campaign: Campaign, store: Store, journal: Journal, context: Context) -> None:
        self._campaign = campaign
        self._store = store
        self._journal = journal
        self._context = context
        self.settings = self._resolved(campaign)
        self.dispatch = Dispatch(
            campaign.potentials,
            campaign.sampler,
            campaign.reference,
            self.settings,
            store,
            campaign.start,
        )
        self._orders: dict[str, Order] = {}
        self._held: list[Outcome] = []
        self._looked = False
        """Whether labels that no candidate knows of have been looked for."""
        self._anew: list[str] = []
        """Files that were made again from the request."""
        self._waiting = Waiting()
        self._zero_is_known = not campaign.data
        self.state = self._opened()

    def check(self, show: Callable[[str], None]) -> None:
        """Ask a worker of each kind whether its component works there with these structures.

        Args:
            show: is told what workers are waited for.
        """
        atoms = [isolated_atom(symbol) for symbol in self._campaign.species]
        given = [to_plain(structure) for structure in (*self._campaign.start, *self._campaign.test)]
        checks = _checks(self._campaign)
        self._context.start([(work, needs) for work, needs in checks])
        for work, needs in checks:
            structures = given + [to_plain(atom) for atom in atoms] if work == "label" else given
            task: Plain = {"spec": needs[0].to_plain(), "structures": structures}
            if work == "sample":
                task |= self.dispatch.tried_out()
            _raise_failed_check(self._answer(work, task, needs, show))

    def _answer(self, work: Work, task: Plain, needs: Sequence[Spec], show: Callable[[str], None]) -> Outcome:
        """What a worker says to a check; one that was lost over it has not answered."""
        for _ in range(ATTEMPTS):
            outcome = self._context.run(work, "check", task, CHECK_PATIENCE, needs, show)
            if outcome.failure is None or outcome.failure["reason"] not in MACHINE:
                break
        return outcome

    def propose(self) -> None:
        """Write down what is known before the first task: atoms, structures, and a given model."""
        first = self._first_candidates()  # in every session: what is lost of their files comes back
        if not self.state.candidates:
            self._append("proposed", {"candidates": first})
        else:
            self._tell_anew()
        self._drop_unreadable()
        model = self._given_model()
        if model is not None and not self.state.generations:
            self._append("adopted", {"members": [self._adopted(member) for member in model.members]})

    def _tell_anew(self) -> None:
        tell(self._store.folder, self._anew, "made again from the request")
        self._anew.clear()

    def _drop_unreadable(self) -> None:
        """Give up candidates whose structure is lost before it had a label."""
        lost = unreadable(self.state, self._store)
        if not lost:
            return
        files = [self._file_of(candidate.structure) for candidate in lost]
        tell(self._store.folder, files, "these structures had no label yet: they are no candidates any longer")
        nothing: Plain = {"labels": [], "models": [], "walkers": [], "evaluation": False}
        self._append("damaged", nothing | {"files": files, "structures": [candidate.id for candidate in lost]})

    def _first_candidates(self) -> list[Plain]:
        campaign, learning = self._campaign, self.settings
        first = learning.bootstrap.make(campaign.start, learning.seed) if campaign.bootstraps else []
        proposals = self._proposals("atom", [isolated_atom(symbol) for symbol in campaign.species])
        proposals += self._given(campaign.learned)
        proposals += self._proposals("bootstrap", first)
        return proposals + self._proposals("test", campaign.test)

    def events(self) -> Iterator[None]:
        """Start, wait, write down; yields after every change, and ends with the campaign."""
        for task in list(self.state.running.values()):
            self._submit(self.dispatch.order(task, self.state))
        with self._journal.together():
            self._go_on()
        while self.state.finished is None:
            yield
            self._journal.confirm()
            for order in self._waiting.over():
                self._submit(order)
            outcomes = self._next_outcomes()
            with self._journal.together():  # the wait for the disk is at its end: workers have their next tasks
                self._write_down(outcomes)
                self._go_on()
        yield

    @property
    def under_way(self) -> bool:
        """Whether workers are at something."""
        return len(self.state.running) > len(self._waiting) + len(self._held)

    def wind_down(self) -> None:
        """Write down what has ended since, after waiting for it a moment; start nothing."""
        outcomes = self._next_outcomes()
        with self._journal.together():
            self._write_down(outcomes)

    def _go_on(self) -> None:
        self._check_zero()
        self._start_planned()
        self._conclude()

    def _check_zero(self) -> None:
        """Once the free atoms are labelled, and before anything is trained: whether the data have the same zero.

        Raises:
            CampaignError: they have not.
        """
        atoms = self.state.of("atom")
        if not self._zero_is_known and atoms and all(atom.status == "labelled" for atom in atoms):
            self._zero_is_known = True
            check_zero(self._campaign.data, self.dispatch.atomic_energies(self.state))

    def _write_down(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            order = self._orders.pop(outcome.key)
            kind, data = self.dispatch.event(order, self._settled(order, outcome), self.state)
            if kind == "labelled":
                self._journal.relies_on(self._store.absolute(data["file"]))  # workers need not wait for the disk
            self._append(kind, data)

    def _settled(self, order: Order, outcome: Outcome) -> Outcome:
        """What a task came to: a worker may have been lost after it had finished.

        Raises:
            CampaignError: the disk is full.
        """
        if outcome.failure is None:
            return outcome
        if outcome.failure["reason"] == "disk":
            raise no_disk(self._store.folder, outcome.failure["message"])
        return self.dispatch.known(order) or outcome

    def _start_planned(self) -> None:
        capacity = self._context.capacity
        while True:
            reason = exhausted(self.state, self.settings)
            if reason and self.state.closing is None:
                if self._takes_back():
                    continue
                self._append("closing", {"reason": reason})
            tasks = plan(self.state, self.settings, capacity.pool_of, capacity.slots, self._waiting)
            if not tasks:
                return
            if any(map(self._pays_for, tasks)) and self._takes_back():
                continue
            for task in tasks:
                self._append("started", {"task": task.id, "kind": task.kind, "about": task.about})
                self._submit(self.dispatch.order(task, self.state))

    def _pays_for(self, task: Task) -> bool:
        """Whether a task asks for a label that has to be computed; once in a session is enough to know it."""
        if self._looked or task.kind != "label":
            return False
        return self.dispatch.known(self.dispatch.order(task, self.state)) is None

    def _takes_back(self) -> bool:
        """Before more is paid for, or the campaign ends: use labels in the store that the journal has lost.

        They come last, for a driver that finds the results of its tasks again proposes their structures by itself.

        Returns:
            Whether there are any.
        """
        if self._looked:
            return False
        self._looked = True
        files = list(unknown_labels(self.state, self._store, self._campaign.reference))
        if files:
            count = "1 label" if len(files) == 1 else f"{len(files)} labels"
            warnings.warn(
                f"{count} in {self._store.folder} that the journal does not know: used, and not computed again",
                stacklevel=2,
            )
            self._append("proposed", {"candidates": [self.dispatch.taken_back(file) for file in files]})
        return bool(files)

    def _submit(self, order: Order) -> None:
        """Send a task, unless its outcome is there already."""
        self._orders[order.task.id] = order
        known = self.dispatch.known(order)
        if known is not None:
            self._held.append(known)
        else:
            self._context.submit(order.task.id, order.work, order.task.kind, order.input, order.needs, order.asks)

    def _next_outcomes(self) -> list[Outcome]:
        """What has ended. Sequentially, a phase is written down at its end, in the order of its tasks."""
        if self._held and self.settings.schedule == "concurrent":
            held, self._held = self._held, []
            return held
        if len(self._held) < len(self.state.running):
            ended = list(self._arrived())
            if self.settings.schedule == "concurrent":
                return ended
            self._held += ended
        if len(self._held) < len(self.state.running):
            return []
        held, self._held = self._held, []
        return sorted(held, key=lambda outcome: outcome.key)

    def _arrived(self) -> Iterator[Outcome]:
        """What has ended on workers. A label that another campaign is computing is waited for here."""
        if not self.under_way:
            time.sleep(LOOK)
        for outcome in self._context.completed(LOOK):
            order = self._orders[outcome.key]
            if order.task.kind == "label" and "computed_by" in (outcome.value or {}):
                self._waiting.add(order, self.dispatch.label_file_of(order))
            else:
                yield outcome

    def _conclude(self) -> None:
        end = conclusion(self.state, self.settings)
        if end is not None:
            self._append("finished", {"reason": end[0], "message": end[1]})
        elif not self.state.running:
            raise CampaignError(
                "nothing is left to do, and yet the campaign has not ended: this is a defect of psiflow; "
                f"please report it with {self._store.journal_file}"
            )

    def _append(self, kind: str, data: Plain) -> None:
        apply(self.state, self._journal.append(kind, data), self.settings)

    def _opened(self) -> State:
        """The state that the journal gives, and this session written into it."""
        events = list(self._journal.events())
        configuration = self._campaign.configuration()
        state = fold(events, self.settings)
        if any(event.kind != "opened" for event in events):  # one that a check refused has not begun
            refuse_other(sessions(events)[-1]["configuration"], configuration, self._store.folder)
        if state.candidates:  # what is damaged of these is in the request
            self._given(self._campaign.learned)
            self._given_model()
            self._tell_anew()
        mended = mend_structures(state, self._store, self._campaign.reference)
        tell(self._store.folder, mended, "made again from their labels")
        lost = damage(state, self._store)
        tell(self._store.folder, lost["files"] if lost else [], "computed again")
        data = {
            "configuration": configuration,
            "versions": self._campaign.versions(),
            "context": self._context.describe(),
            "homes": [_home(needs) for _, needs in _checks(self._campaign)],
            "slots": self._context.capacity.slots,
            "host": socket.gethostname(),
            "clock": self._journal.clock,
            "closing": still_closing(state, self.settings),
        }
        if self._journal.damaged is not None:
            data["damaged"] = self._journal.damaged.name
        if lost or state.finished in (None, "failed") or exhausted(state, self.settings) is None:
            apply(state, self._journal.append("opened", data), self.settings)
        if lost:
            apply(state, self._journal.append("damaged", lost), self.settings)
        return state

    def _proposals(self, origin: str, structures: Sequence[Atoms]) -> list[Plain]:
        """What is proposed for these structures, each but once."""
        unique = {digest(structure): structure for structure in structures}
        self._anew += [self._file_of(key) for key, one in unique.items() if self._store.put_structure(one)]
        return [{"structure": key, "origin": origin} for key in unique]

    def _given(self, data: Sequence[Atoms]) -> list[Plain]:
        """Labels that came with the request: the campaign's own, for nobody knows who computed them."""
        proposals = self._proposals("initial", data)
        labelled = {digest(structure): structure for structure in data}
        for proposal in proposals:
            structure = labelled[proposal["structure"]]
            file = self._store.given / f"{proposal['structure']}.json"
            if not has_label(file):
                self._anew.append(self._store.relative(str(file)))
                write_label(file, {"structure": to_plain(with_label(structure, label_in(structure))), "seconds": 0.0})
            proposal["file"] = self._store.relative(str(file))
        return proposals

    def _given_model(self) -> TrainedPotential | None:
        """The model that came with the request, as the campaign keeps it."""
        model, folder = self._campaign.model, self._store.models / "given"
        if model is None:
            return None
        try:
            return TrainedPotential.load(folder)
        except ModelCorrupt:
            self._anew.append(self._store.relative(str(folder)))
            return TrainedPotential.load(model.save(folder))

    def _file_of(self, structure: str) -> str:
        return self._store.relative(str(structure_file(self._store.structures, structure)))

    def _adopted(self, member: Member) -> Plain:
        """A member that came with the request, as one that was trained; nobody knows its errors."""
        model = {"path": self._store.relative(str(member.file.path)), "digest": member.file.digest}
        return {"model": model, "errors": {}, "steps": 0, "history": [], "seconds": 0.0}

    def _resolved(self, campaign: Campaign) -> Settings:
        """The settings, with the number of batched walkers chosen where it is left to psiflow."""
        settings = campaign.learning
        if settings.walking.segment.batch is not None:
            return settings
        device = self._context.resources("sample").device
        size = batch_size(max(len(structure) for structure in campaign.start), device)
        segment = settings.walking.segment.model_copy(update={"batch": size})
        walking = settings.walking.model_copy(update={"segment": segment})
        return settings.model_copy(update={"walking": walking})


def no_disk(folder: Path, message: str) -> CampaignError:
    return CampaignError(
        f"the campaign in {folder} has stopped: {message}. Make room and run the same again: what workers have "
        "finished is kept"
    )


def _checks(campaign: Campaign) -> list[tuple[Work, tuple[Spec, ...]]]:
    """What is checked in which pool: the first of the components that a task of its kind needs in one environment."""
    checks: list[tuple[Work, tuple[Spec, ...]]] = [("label", (campaign.reference,))]
    checks += [("sample", (campaign.sampler, potential)) for potential in campaign.potentials]
    return [*checks, *(("train", (potential,)) for potential in campaign.potentials)]


def _home(needs: Sequence[Spec]) -> Plain:
    """Where components run that are needed together; raises `PluginNotFound`."""
    environment = choose(needs)
    plugins = {spec.distribution: spec.version for spec in needs}
    return {
        "components": [f"{spec.kind} {spec.name}" for spec in needs],
        "environment": environment.name,
        "launch": list(environment.launch),
        "versions": {name: environment.offers[name] for name in MUST_AGREE} | plugins,
    }


def _raise_failed_check(outcome: Outcome) -> None:
    """A worker's objection as the exception that it was there."""
    if outcome.failure is None:
        return
    kinds: dict[str, type[PsiflowError]] = {
        kind.__name__: kind for kind in (EngineMissing, OptionError, PluginBroken, StructureError, WrongAnswer)
    }
    kind = kinds.get(outcome.failure["type"], CampaignError)
    raise kind(told(outcome.failure))

"""The end of a campaign: when sampling stops, when all tasks are done, and when it gives up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import label_task
from psiflow_core.learning.policies.settings import Settings


def conclusion(state: State, settings: Settings) -> tuple[str, str] | None:
    """Why the campaign ends now, as a word and a sentence; None while tasks remain."""
    fatal = _fatal(state, settings)
    if fatal:
        return "failed", fatal
    if state.running or state.again or state.closing is None:
        return None
    if state.newest is None and not state.usable:
        return state.closing, f"{REASONS[state.closing]}, before there was a first model"
    if not final_is_trained(state, settings) or state.tests_pending:
        return None
    if state.newest is None or state.evaluated != state.newest.number:
        return None
    return state.closing, REASONS[state.closing]


REASONS = {
    "labels": "the budget of labels is spent",
    "generations": "the budget of generations is spent",
    "hours": "the budget of hours is spent",
    "converged": "no walker meets anything that the potential does not know",
    "stalled": "no walker meets anything new, but some do little else than start over",
}


def exhausted(state: State, settings: Settings) -> str | None:
    """Why no more structures should be sampled and labelled; None while they should."""
    budget = settings.budget
    complete = state.generations[:-1] if state.in_training else state.generations
    done = sum(1 for generation in complete if generation.known and not generation.final)
    if state.count("labelled") >= budget.labels:
        return "labels"
    if budget.generations is not None and done >= budget.generations:
        return "generations"
    if budget.hours is not None and state.elapsed >= budget.hours * 3600:
        return "hours"
    if not _nothing_new(state, settings) or all_astray(state, settings):
        return None
    return "stalled" if any(walker.astray > walker.idle / 2 for walker in state.walkers) else "converged"


def still_closing(state: State, settings: Settings) -> str | None:
    """Why a closing campaign is still closing; None if a larger budget lets it continue."""
    if state.closing in ("converged", "stalled"):
        return state.closing
    return exhausted(state, settings) if state.closing else None


def _nothing_new(state: State, settings: Settings) -> bool:
    """Whether every walker has had many segments without a candidate, or has ended."""
    newest = state.newest
    if newest is None or state.label_pending or state.in_training:
        return False
    if all(walker.idle >= settings.patience for walker in state.walkers):
        return True
    fresh = len(state.usable) > newest.known
    return not fresh and all(
        walker.idle >= settings.patience or (walker.settled is not None and walker.settled >= newest.number)
        for walker in state.walkers
    )


def _fatal(state: State, settings: Settings) -> str | None:
    if state.broken:
        return state.broken.message
    return _labels_are_lost(state, settings) or _given_up(state) or _walkers_are_lost(state, settings)


def _labels_are_lost(state: State, settings: Settings) -> str | None:
    """The message if too many labels failed, or an indispensable label; else None."""
    candidates = state.candidates
    if candidates.count("failed", origins=("atom",)):
        atoms = [atom for atom in state.of("atom") if atom.status == "failed"]
        return f"the reference cannot compute an isolated atom: {_last_message(state, atoms)}"
    failed, labelled = state.count("failed"), state.count("labelled")
    if settings.stopping.gives_up(failed, failed + labelled):
        return f"{failed} of {failed + labelled} labels failed; the last: {_last_message(state, candidates)}"
    first = candidates.number_of("bootstrap", "initial")
    if first and candidates.count("failed", origins=("bootstrap", "initial")) == first:
        last = _last_message(state, state.of("bootstrap", "initial"))
        return f"every structure to begin with failed; the last: {last}"
    return None


def _given_up(state: State) -> str | None:
    """The message of an indispensable task that failed; None without one."""
    last = state.fatal
    if last is None:
        return None
    times = "once" if last.attempts == 1 else f"{last.attempts} times"
    return f"{last.task} failed {times}; the last: {last.told}"


def _walkers_are_lost(state: State, settings: Settings) -> str | None:
    """The message if every walker keeps starting over, and no further training could help; else None."""
    newest = state.newest
    if not all_astray(state, settings) or newest is None or state.running or state.closing:
        return None
    if state.label_pending or newest.known < len(state.usable):
        return None
    reasons = Counter(reason for walker in state.walkers for reason in walker.resets.elements())
    segments = sum(walker.astray for walker in state.walkers)
    return (
        f"the last {segments} segments all ended with a walker that had to start over "
        f"({', '.join(f'{reason}: {count}' for reason, count in reasons.most_common(3))}); {_cure(state)}"
    )


def _cure(state: State) -> str:
    """What helps walkers that start over again and again: nothing, where it is not physics that ends their segments."""
    ends = {walker.stopped for walker in state.walkers}
    of_walkers = [one for one in state.failures if one.walker is not None and one.type in ends]
    unforeseen = [one for one in of_walkers if one.type != "WalkerExploded"]
    if unforeseen:
        return f"the last: {unforeseen[-1].told}"
    return "give more bootstrap structures, or a lower temperature"


def _last_message(state: State, candidates: Sequence[Candidate]) -> str:
    """Of the failures of these candidates' labels."""
    tasks = {label_task(candidate.id).id for candidate in candidates}
    messages = [failure.told for failure in state.failures if failure.task in tasks]
    return messages[-1] if messages else "no message"


def final_is_trained(state: State, settings: Settings) -> bool:
    newest = state.newest
    if newest is None or state.in_training or newest.known != len(state.usable):
        return False
    nothing_to_learn_from = newest.known == 0  # the model was given, and no label came
    return newest.final or settings.training.final_steps is None or nothing_to_learn_from


def only_final_is_left(state: State, settings: Settings) -> bool:
    """Whether another generation could choose no label, as all are there or under way, and a final one follows."""
    spent = state.candidates.count("labelled", "labelling") >= settings.budget.labels
    return spent and settings.training.final_steps is not None


def all_astray(state: State, settings: Settings) -> bool:
    """Whether every walker has started over again and again, and done nothing else."""
    patience = settings.stopping.patience
    return all(walker.astray >= patience and walker.astray == walker.idle for walker in state.walkers)

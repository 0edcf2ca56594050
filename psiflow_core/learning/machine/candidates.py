"""Candidates: structures that may be worth a label, their status, and the queue for labels.

Counts and queue are updated with every change, so that a step of the driver costs the same for ten candidates as for
a hundred thousand.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import islice
from math import inf, isnan
from typing import Any, Literal, overload

Origin = Literal["atom", "initial", "bootstrap", "walker", "test"]
Status = Literal["queued", "labelling", "labelled", "failed", "dropped"]

UNNEEDED = "the campaign ended first"
"""The reason of candidates dropped at the end; a larger budget brings them back."""

DAMAGED = "damaged"
"""The reason of a candidate whose label was lost: it comes before candidates without a computed label."""

LEARNED: tuple[Origin, ...] = ("initial", "bootstrap", "walker")
"""Origins of training structures."""

PAID: tuple[Origin, ...] = ("bootstrap", "walker")
"""Origins whose labels count in the budget."""


@dataclass(frozen=True)
class Candidate:
    """A structure that may be worth a label, and its status."""

    id: int
    structure: str
    """Content hash."""
    origin: Origin
    subset: str
    """`training`, `validation`, `test` or `atom`."""
    status: Status = "queued"
    walker: int | None = None
    segment: int | None = None
    generation: int | None = None
    """The model that met it."""
    deviation: float | None = None
    """The committee's largest force spread when the walker met it. [eV/Å]"""
    need: float = 0.0
    """The same by the newest model that has scored it: the order of the queue. [eV/Å]"""
    looked: int = -1
    """The generation of that model."""
    error: dict[str, float] | None = None
    """The model's error, once there is a label."""
    file: str | None = None
    """The file of the label."""
    starts: int = 0
    """How often its walker had started over before."""
    discarded: bool = False
    """Labelled, but too far from the model to be trained on."""
    suspicious: bool = False
    """The label is so far from the committee's prediction that one of them must be wrong: a person should look."""
    reason: str = ""
    """The reason of a failure or a drop."""

    @property
    def usable(self) -> bool:
        """Whether it is usable for training or validation."""
        return self.status == "labelled" and not self.discarded and self.origin in LEARNED


Urgency = tuple[bool, bool, float, int]
"""Lost labels first, then the bootstrap, then by force spread; the last entry is the candidate's number."""


@dataclass
class Candidates(Sequence[Candidate]):
    """All candidates, by number. Only `change` changes a candidate, because it updates the counts and the queue."""

    _all: list[Candidate] = field(default_factory=list)
    _counts: Counter[tuple[Status, Origin]] = field(default_factory=Counter)
    _by_origin: dict[Origin, list[int]] = field(default_factory=dict)
    _by_structure: dict[str, int] = field(default_factory=dict)
    """The first candidate of each structure that may be used for training."""
    _usable: list[int] = field(default_factory=list)
    """In order."""
    _queue: list[Urgency] = field(default_factory=list)
    """The queued candidates within the budget, the most urgent first."""
    _unpaid: dict[Origin, list[int]] = field(default_factory=dict)
    """The queued candidates of the other origins, in order."""
    _looks: Counter[int] = field(default_factory=Counter)
    """The queued candidates of walkers, by the generation that scored them last."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._all)

    @overload
    def __getitem__(self, number: int) -> Candidate: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, number: int | slice) -> Candidate | Sequence[Candidate]:
        return self._all[number]

    def add(self, candidate: Candidate) -> None:
        """Add a new candidate with the next number."""
        self._all.append(candidate)
        self._by_origin.setdefault(candidate.origin, []).append(candidate.id)
        if candidate.origin in LEARNED:
            self._by_structure.setdefault(candidate.structure, candidate.id)
        self._enter(candidate)

    def change(self, number: int, **fields: Any) -> Candidate:
        """Change fields of a candidate, its status for instance."""
        changed = replace(self._all[number], **fields)
        self._leave(self._all[number])
        self._all[number] = changed
        self._enter(changed)
        return changed

    def _enter(self, candidate: Candidate) -> None:
        """Take a candidate into the counts and the queue."""
        self._counts[candidate.status, candidate.origin] += 1
        if candidate.usable:
            insort(self._usable, candidate.id)
        if candidate.status != "queued":
            return
        if candidate.origin not in PAID:
            insort(self._unpaid.setdefault(candidate.origin, []), candidate.id)
            return
        insort(self._queue, urgency(candidate))
        if candidate.origin == "walker":
            self._looks[candidate.looked] += 1

    def _leave(self, candidate: Candidate) -> None:
        """Take a candidate out of the counts and the queue."""
        self._counts[candidate.status, candidate.origin] -= 1
        if candidate.usable:
            del self._usable[bisect_left(self._usable, candidate.id)]
        if candidate.status != "queued":
            return
        if candidate.origin not in PAID:
            unpaid = self._unpaid[candidate.origin]
            del unpaid[bisect_left(unpaid, candidate.id)]
            return
        del self._queue[bisect_left(self._queue, urgency(candidate))]
        if candidate.origin == "walker":
            self._looks -= Counter({candidate.looked: 1})  # removes a generation with no candidates

    def count(self, *statuses: Status, origins: Iterable[Origin] = PAID) -> int:
        """The number of candidates with one of these statuses; by default of those within the budget."""
        return sum(self._counts[status, origin] for origin in origins for status in statuses)

    def number_of(self, *origins: Origin) -> int:
        """The number of candidates of these origins."""
        return sum(len(self._by_origin.get(origin, ())) for origin in origins)

    def of(self, *origins: Origin) -> list[Candidate]:
        """Candidates by origin, in order."""
        return [self._all[number] for number in merge(*(self._by_origin.get(origin, ()) for origin in origins))]

    def with_structure(self, structure: str) -> Candidate | None:
        """The first candidate with this structure that may be used for training."""
        number = self._by_structure.get(structure)
        return None if number is None else self._all[number]

    @property
    def usable(self) -> Sequence[int]:
        """The numbers of candidates that are usable for training, in order."""
        return self._usable

    def queue(self, most: int) -> Iterator[Candidate]:
        """The most urgent candidates in the queue that are within the budget, at most this many."""
        return (self._all[number] for *_, number in islice(self._queue, max(0, most)))

    def unpaid(self, *origins: Origin) -> Iterator[Candidate]:
        """The queued candidates of origins outside the budget, in order."""
        return (self._all[number] for number in merge(*(self._unpaid.get(origin, ()) for origin in origins)))

    def stale(self, generation: int) -> list[int]:
        """The walkers' queued candidates that were last scored by an older generation, in order."""
        if all(looked >= generation for looked in self._looks):
            return []
        queued = (self._all[number] for *_, number in self._queue)
        return sorted(one.id for one in queued if one.origin == "walker" and one.looked < generation)


def urgency(candidate: Candidate) -> Urgency:
    """The place in the queue: a structure whose spread is not a number comes first."""
    need = inf if isnan(candidate.need) else candidate.need
    return candidate.reason != DAMAGED, candidate.origin != "bootstrap", -need, candidate.id

"""What is written down of a campaign's request, and how a later request is held against it."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ase import Atoms

from psiflow_core import catalogue
from psiflow_core.components import Kind, Spec
from psiflow_core.errors import CampaignError, FileCorrupt, OptionError, PluginBroken, PluginNotFound, StructureError
from psiflow_core.journal import Event, Journal
from psiflow_core.learning.campaign import State
from psiflow_core.learning.events import fold, understood
from psiflow_core.learning.given import check_data, is_free_atom
from psiflow_core.learning.settings import Settings
from psiflow_core.models import TrainedPotential
from psiflow_core.store import Store
from psiflow_core.structures import Plain, digest, from_plain, sha256, species

FREE = ("budget", "stopping", "walking.segment.batch", "walking.segment.stride")
"""What may change between two runs of a campaign: it changes what is still done, not what was done."""

HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
"""A SHA-256, of which a person is shown the beginning at most."""


@dataclass(frozen=True)
class Campaign:
    """A request: settings, components and structures."""

    learning: Settings
    potentials: Sequence[Spec]
    """Members of the committee are of each in turn."""
    sampler: Spec
    reference: Spec
    start: Sequence[Atoms]
    test: Sequence[Atoms]
    data: Sequence[Atoms]
    model: TrainedPotential | None

    def __post_init__(self) -> None:
        settings = self.learning
        self._check_data()
        for bias in settings.walking.bias:
            for structure in self.start:
                bias.check(structure)
        if self.bootstraps and settings.bootstrap.structures == 0:
            raise OptionError("there is nothing to begin with: bootstrap.structures=0, and neither data nor model")
        for option in settings.walking.ramped(0.0):
            if self.sampler.options.get(option) is None:
                raise OptionError(f"sampler '{self.sampler.name}' has no {option} to ramp: give it one")
        if settings.committee < len(self.potentials):
            raise OptionError(
                f"committee={settings.committee} for {len(self.potentials)} potentials: each needs a member at least"
            )
        self._check_model()

    def _check_model(self) -> None:
        """Refuse a model to begin with that is no committee of this campaign's."""
        if self.model is None:
            return
        count = len(self.model.members)
        if count != self.learning.committee:
            raise OptionError(f"the model to begin with has {count} members, committee={self.learning.committee}")
        for number, member in enumerate(self.model.members):
            wanted = self.potentials[number % len(self.potentials)].name
            if member.potential.name != wanted:
                raise OptionError(
                    f"member {number} of the model to begin with is of potential '{member.potential.name}', and the "
                    f"campaign's is of '{wanted}'"
                )

    def _check_data(self) -> None:
        """Refuse labels that nothing can be learned from, and tests that are not unseen."""
        check_data(self.data, self.learning.walking.limits.force)
        seen = {digest(structure) for structure in self.data}
        for number, structure in enumerate(self.test):
            if digest(structure) in seen:
                raise StructureError(f"test structure {number} is in the data too; leave it out of one of them")

    @property
    def learned(self) -> list[Atoms]:
        """The data that are learned from: free atoms are no structures, they are the zero of energy."""
        return [structure for structure in self.data if not is_free_atom(structure)]

    @property
    def bootstraps(self) -> bool:
        """Whether structures have to be made before there is a model."""
        return self.model is None and not self.learned

    @property
    def species(self) -> list[str]:
        """Chemical symbols of everything that is given."""
        return species([*self.start, *self.test, *self.data])

    def configuration(self) -> Plain:
        """All that makes this campaign this one, as plain data."""
        fields, potentials = set(Settings.model_fields), [_written(spec) for spec in self.potentials]
        return {
            **self.learning.model_dump(mode="json", include=fields),
            "potential": potentials if len(potentials) > 1 else potentials[0],
            "sampler": _written(self.sampler),
            "reference": _written(self.reference),
            "start": _identity(self.start),
            "test": _identity(self.test),
            "data": _identity(self.data),
            "model": sha256([member.file.digest for member in self.model.members]) if self.model else None,
        }

    def versions(self) -> Plain:
        """What computes it; may change between two runs, and is recorded."""
        components = (*self.potentials, self.sampler, self.reference)
        plugins = {spec.distribution: spec.version for spec in components}
        return {"psiflow-core": version("psiflow-core"), **plugins}


@dataclass(frozen=True)
class Recorded:
    """A campaign as its folder tells it; it may be running."""

    store: Store
    events: list[Event]
    settings: Settings
    state: State

    @property
    def configuration(self) -> Plain:
        """What the last session was asked."""
        found: Plain = sessions(self.events)[-1]["configuration"]
        return found

    def formula(self, structure: str) -> str:
        """The formula of a structure, by its content hash; empty where a disk has lost it."""
        try:
            return str(from_plain(self.store.structure(structure)["structure"]).get_chemical_formula())
        except FileCorrupt:
            return ""


def read_campaign(folder: str | Path) -> Recorded:
    """Read a campaign's journal; nothing is written, and a driver may be at work.

    Raises:
        CampaignError: there is no campaign in the folder, or its journal cannot be read.
    """
    store = Store(folder)
    if not store.exists():
        raise CampaignError(f"there is no campaign in {folder}: {store.journal_file.name} is missing")
    journal = Journal(store.journal_file)
    try:
        events = list(journal.events())
    finally:
        journal.close()
    opened = sessions(events)
    if not opened:
        raise CampaignError(f"the campaign in {folder} has not begun: its journal is empty")
    recorded = opened[-1]["configuration"]
    settings = _settings(recorded, folder)
    _state_defaults(recorded, settings.model_dump(mode="json", include=set(Settings.model_fields)), folder)
    return Recorded(store, events, settings, fold(events, settings))


SESSION = ("configuration", "versions", "context", "homes", "slots")
"""What every session of a driver writes down."""


def sessions(events: Sequence[Event]) -> list[Plain]:
    """What the sessions of the driver wrote down when they began.

    Raises:
        CampaignError: another version of psiflow did.
    """
    opened = [event for event in events if event.kind == "opened"]
    for event in opened:
        with understood(event):
            for name in SESSION:
                event.data[name]
    return [event.data for event in opened]


def refuse_other(recorded: Plain, asked: Plain, folder: object) -> None:
    """Compare what a folder's campaign was asked with what is asked now.

    A setting or an option that there was not when the campaign began has had its default ever since; that is told.

    Raises:
        CampaignError: they differ in something that cannot change; every difference is named.
    """
    complete = _completed(recorded, folder)
    _state_defaults(recorded, complete, folder)
    differences = [text for name, text in _differences(complete, asked) if not name.startswith(FREE)]
    if differences:
        raise CampaignError(
            f"the campaign in {folder} was started with another configuration: {'; '.join(differences)}. "
            "Go on with the recorded values, or choose another folder; budgets may be changed"
        )


COMPONENTS: tuple[Kind, ...] = ("potential", "sampler", "reference")

REQUEST = (*COMPONENTS, "start", "test", "data", "model")
"""What a configuration holds beside the settings."""


def _settings(recorded: Plain, folder: object) -> Settings:
    """The settings of a configuration, with the defaults of what it lacks.

    Raises:
        CampaignError: it has some that this psiflow does not know, or lacks one that has no default.
    """
    foreign = {name: value for name, value in recorded.items() if name not in REQUEST}
    try:
        return Settings(**foreign)
    except OptionError as error:
        raise CampaignError(
            f"the campaign in {folder} was begun by another version of psiflow, whose settings are not this one's: "
            f"{error}. Go on with that version, or choose another folder"
        ) from error


def _completed(recorded: Plain, folder: object) -> Plain:
    """A configuration with the defaults of the settings and options that it lacks."""
    settings = _settings(recorded, folder).model_dump(mode="json", include=set(Settings.model_fields))
    components: Plain = {}
    for kind in COMPONENTS:
        written = recorded.get(kind)
        one = _with_defaults(kind, written) if isinstance(written, dict) else written
        components[kind] = [_with_defaults(kind, other) for other in one] if isinstance(one, list) else one
    return {**recorded, **settings, **components}


def _with_defaults(kind: Kind, written: Plain) -> Plain:
    """A component with the defaults of options that its plugin did not have then; as it is, if that is not there."""
    options = {name: value for name, value in written.items() if name != "name"}
    try:
        return {**_written(catalogue.spec(kind, written["name"], options)), **written}
    except (OptionError, PluginNotFound, PluginBroken):
        return written


def _state_defaults(recorded: Plain, complete: Plain, folder: object) -> None:
    """Tell what a campaign has by default, for there was no such setting when it began."""
    new = list(_lacking(recorded, complete))
    if new:
        warnings.warn(
            f"the campaign in {folder} began without what this psiflow has as {', '.join(new)}: that is its default",
            stacklevel=3,
        )


def _lacking(before: Plain, now: Plain, name: str = "") -> Iterator[str]:
    for key, value in now.items():
        path = f"{name}.{key}" if name else key
        if key not in before:
            yield f"{path}={_short(value)}"
        elif isinstance(before[key], dict) and isinstance(value, dict):
            yield from _lacking(before[key], value, path)


def _written(spec: Spec) -> Plain:
    return {"name": spec.name, **spec.options}


def _identity(structures: Sequence[Atoms]) -> str | None:
    """Formulas for people, and the hash that tells structures apart; None without any."""
    if not structures:
        return None
    counts = Counter(structure.get_chemical_formula() for structure in structures)
    formulas = [formula if count == 1 else f"{count} {formula}" for formula, count in counts.items()]
    more = "" if len(formulas) <= 4 else f" and {len(formulas) - 4} more formulas"
    return f"{', '.join(formulas[:4])}{more} {sha256([digest(structure) for structure in structures])}"


def _differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now and name in ("start", "test", "data"):
        yield name, _other_structures(name, before, now)
    elif before != now:
        yield name, f"{name} was {_short(before)} and is now {_short(now)}"


def _other_structures(name: str, before: str | None, now: str | None) -> str:
    was, is_now = (HASH.sub("", text).strip() if text else "none" for text in (before, now))
    moved = " with other positions, cell, charge or spin" if was == is_now else ""
    return f"{name} was {was} and is now {is_now}{moved}"


def _short(value: Any) -> str:
    text = HASH.sub(r"\1", repr(value))
    return text if len(text) <= 60 else f"{text[:57]}…"

"""The recorded request of a campaign, and its comparison with a later request."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from ase import Atoms

from psiflow_core.components import Bias, Kind, Scheme, Spec
from psiflow_core.environments import catalogue
from psiflow_core.errors import CampaignError, FileCorrupt, OptionError, PluginBroken, PluginNotFound, StructureError
from psiflow_core.labels.given import check_data, is_free_atom
from psiflow_core.learning.driver.differences import differences, short
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.machine.events import Event, Opened, parsed
from psiflow_core.learning.machine.fold import fold
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.potentials.trained import TrainedPotential
from psiflow_core.structures import Plain, digest, from_plain, moving_digest, sha256, species

FREE = ("budget", "stopping", "walking.segment.batch", "walking.segment.stride")
"""Settings that may change between two runs of a campaign: they affect future tasks only."""


@dataclass(frozen=True)
class Campaign:
    """A request: settings, components and structures."""

    learning: Settings
    potentials: Sequence[Spec]
    """The members of the committee take these in turn."""
    sampler: Spec
    reference: Spec
    start: Sequence[Atoms]
    test: Sequence[Atoms]
    data: Sequence[Atoms]
    model: TrainedPotential | None

    def __post_init__(self) -> None:
        settings = self.learning
        self._check_data()
        for bias in self._biases:
            bias.check(self.start)
        if self.bootstraps and settings.bootstrap.structures == 0:
            raise OptionError("there is nothing to begin with: bootstrap.structures=0, and neither data nor model")
        if settings.committee < len(self.potentials):
            raise OptionError(
                f"committee={settings.committee} for {len(self.potentials)} potentials: each needs at least one member"
            )
        self._check_model()

    def _check_model(self) -> None:
        """Refuse an initial model that does not match this campaign's committee."""
        if self.model is None:
            return
        count = len(self.model.members)
        if count != self.learning.committee:
            raise OptionError(f"initial model of {count} members, committee={self.learning.committee}: make them equal")
        for number, member in enumerate(self.model.members):
            wanted = self.potentials[number % len(self.potentials)].name
            if member.potential.name != wanted:
                raise OptionError(
                    f"member {number} of the initial model is of potential '{member.potential.name}', and the "
                    f"campaign's is of '{wanted}'"
                )

    def _check_data(self) -> None:
        """Refuse labels that are not usable for training, and test structures that are in the data."""
        check_data(self.data, self.learning.walking.limits.force)
        seen = {digest(structure) for structure in self.data}
        for number, structure in enumerate(self.test):
            if digest(structure) in seen:
                raise StructureError(f"test structure {number} is in the data too; leave it out of one of them")

    @property
    def learned(self) -> list[Atoms]:
        """The data for training: free atoms are left out, they define the zero of energy."""
        return [structure for structure in self.data if not is_free_atom(structure)]

    @property
    def bootstraps(self) -> bool:
        """Whether structures have to be generated for the first model."""
        return self.model is None and not self.learned

    @property
    def species(self) -> list[str]:
        """Chemical symbols of all given structures."""
        return species([*self.start, *self.test, *self.data])

    @property
    def policies(self) -> list[Spec]:
        """The selection strategy, and the biases that act on walkers."""
        specs = [catalogue.spec_of(one) for one in (self.learning.selection, *self._biases)]
        return list({spec.digest: spec for spec in specs}.values())

    @property
    def _biases(self) -> list[Bias | Scheme]:
        """Those that act on any walkers."""
        return [bias for group in self.learning.groups for bias in self.learning.bias_of(group)]

    def configuration(self) -> Plain:
        """The identity of the campaign, as plain data."""
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
        """The versions of the computing distributions; recorded, and free to change between two runs."""
        components = (*self.potentials, self.sampler, self.reference, *self.policies)
        own = {"psiflow-core": version("psiflow-core")}
        return own | {part.distribution: part.version for spec in components for part in spec.all}


@dataclass(frozen=True)
class Recorded:
    """A campaign as recorded in its folder; it may be running."""

    store: Store
    events: list[Event]
    settings: Settings
    state: State

    @property
    def configuration(self) -> Plain:
        """The request of the last session."""
        return self.opened.configuration

    @property
    def opened(self) -> Opened:
        """The last session of a driver."""
        return self.state.opened[-1]

    def up_to_date(self) -> Recorded:
        """This campaign with its later events; `state` is changed. Only these are read, unless a session has begun.

        Raises:
            CampaignError: as `read_campaign`.
        """
        try:
            later = _events(self.store, after=len(self.events))
        except CampaignError:  # another journal may have taken its place
            return read_campaign(self.store.folder)
        if any(isinstance(event.what, Opened) for event in later):
            return read_campaign(self.store.folder)
        return replace(self, events=[*self.events, *later], state=fold(later, self.settings, self.state))

    def formula(self, structure: str) -> str:
        """The formula of a structure, by its content hash; empty if its file is lost."""
        try:
            return str(from_plain(self.store.structure(structure)["structure"]).get_chemical_formula())
        except FileCorrupt:
            return ""


def read_campaign(folder: str | Path) -> Recorded:
    """Read a campaign's journal without writing; a driver may run at the same time.

    Raises:
        CampaignError: the folder contains no campaign, or its journal cannot be read.
    """
    store = Store(folder)
    if not store.exists():
        raise CampaignError(f"there is no campaign in {folder}: {store.journal_file.name} is missing")
    events = _events(store)
    opened = [event.what for event in events if isinstance(event.what, Opened)]
    if not opened:
        raise CampaignError(f"the campaign in {folder} has not begun: its journal is empty")
    recorded = opened[-1].configuration
    settings = _settings(recorded, folder)
    _state_defaults(recorded, settings.model_dump(mode="json", include=set(Settings.model_fields)), folder)
    return Recorded(store, events, settings, fold(events, settings))


def _events(store: Store, after: int = 0) -> list[Event]:
    """The events of a campaign from this number on."""
    journal = Journal(store.journal_file)
    try:
        return list(read_events(journal, after))
    finally:
        journal.close()


def read_events(journal: Journal, after: int = 0) -> Iterator[Event]:
    """The events of a journal after this number, in order.

    Raises:
        CampaignError: the journal is damaged, or another version of psiflow wrote it.
    """
    return (parsed(line.number, line.time, line.kind, line.text) for line in journal.events(after))


def refuse_other(recorded: Plain, asked: Plain, folder: object) -> None:
    """Compare the recorded request of a campaign with a new request.

    A setting or an option added to psiflow after the start of the campaign has its default; a warning names it.

    Raises:
        CampaignError: they differ in fixed settings; every difference is named.
    """
    complete = _completed(recorded, folder)
    _state_defaults(recorded, complete, folder)
    other = [text for name, text in differences(complete, asked) if not name.startswith(FREE)]
    if other:
        raise CampaignError(
            f"the campaign in {folder} was started with another configuration: {'; '.join(other)}. "
            "Continue with the recorded values, or choose another folder; budgets may be changed"
        )


COMPONENTS: tuple[Kind, ...] = ("potential", "sampler", "reference")

REQUEST = (*COMPONENTS, "start", "test", "data", "model")
"""The keys of a configuration that are not settings."""


def _settings(recorded: Plain, folder: object) -> Settings:
    """The settings of a configuration, with defaults for missing ones.

    Raises:
        CampaignError: it has unknown settings, or lacks one without a default.
    """
    foreign = {name: value for name, value in recorded.items() if name not in REQUEST}
    try:
        return Settings(**foreign)
    except OptionError as error:
        raise CampaignError(
            f"the campaign in {folder} was begun by another version of psiflow, with different settings: "
            f"{error}. Continue with that version, or choose another folder"
        ) from error


def _completed(recorded: Plain, folder: object) -> Plain:
    """A configuration with defaults for missing settings and options."""
    settings = _settings(recorded, folder).model_dump(mode="json", include=set(Settings.model_fields))
    components: Plain = {}
    for kind in COMPONENTS:
        written = recorded.get(kind)
        one = _with_defaults(kind, written) if isinstance(written, dict) else written
        components[kind] = [_with_defaults(kind, other) for other in one] if isinstance(one, list) else one
    return {**recorded, **settings, **components}


def _with_defaults(kind: Kind, written: Plain) -> Plain:
    """A component with defaults for missing options; unchanged if its plugin is not installed."""
    options = {name: value for name, value in written.items() if name != "name"}
    try:
        return {**_written(catalogue.spec(kind, written["name"], options)), **written}
    except (OptionError, PluginNotFound, PluginBroken):
        return written


def _state_defaults(recorded: Plain, complete: Plain, folder: object) -> None:
    """Warn of the settings that were added to psiflow after the start of a campaign."""
    new = list(_lacking(recorded, complete))
    if new:
        warnings.warn(
            f"the campaign in {folder} is older than these settings, and has their defaults: {', '.join(new)}",
            stacklevel=3,
        )


def _lacking(before: Plain, now: Plain, name: str = "") -> Iterator[str]:
    for key, value in now.items():
        path = f"{name}.{key}" if name else key
        if key not in before:
            yield f"{path}={short(value)}"
        elif isinstance(before[key], dict) and isinstance(value, dict):
            yield from _lacking(before[key], value, path)


def _written(spec: Spec) -> Plain:
    return {"name": spec.name, **spec.options}


def _identity(structures: Sequence[Atoms]) -> str | None:
    """Formulas for people, and a hash of the structures; None without structures."""
    if not structures:
        return None
    counts = Counter(structure.get_chemical_formula() for structure in structures)
    formulas = [formula if count == 1 else f"{count} {formula}" for formula, count in counts.items()]
    more = "" if len(formulas) <= 4 else f" and {len(formulas) - 4} more formulas"
    return f"{', '.join(formulas[:4])}{more} {sha256([moving_digest(structure) for structure in structures])}"

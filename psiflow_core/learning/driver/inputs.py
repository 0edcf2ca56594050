"""The structures, labels and the model of a request, as files of the campaign."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms

from psiflow_core.errors import ModelCorrupt
from psiflow_core.labels.store import given_file, has_label, keep_given, structure_file
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.integrity import tell
from psiflow_core.learning.driver.request import Campaign
from psiflow_core.learning.machine.candidates import Origin
from psiflow_core.learning.machine.events import Proposal
from psiflow_core.learning.machine.generations import TrainedMember, Weights
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.potentials.trained import Member, TrainedPotential
from psiflow_core.structures import digest, isolated_atom


class Inputs:
    """Writes the inputs of a campaign into its folder; lost and damaged ones are written again."""

    def __init__(self, campaign: Campaign, store: Store) -> None:
        self._campaign = campaign
        self._store = store
        self._anew: list[str] = []
        """Files that were written again."""

    def restore(self) -> None:
        """Write damaged given labels and a damaged given model again."""
        self._given(self._campaign.learned)
        self.model()
        self.tell_anew()

    def tell_anew(self) -> None:
        """Warn about the files that were written again."""
        tell(self._store.folder, self._anew, "made again from the request")
        self._anew.clear()

    def candidates(self, settings: Settings) -> list[Proposal]:
        """The first candidates: free atoms, given labels, the bootstrap, and test structures."""
        campaign = self._campaign
        first = settings.bootstrap.make(campaign.start, settings.seed) if campaign.bootstraps else []
        proposals = self._proposals("atom", [isolated_atom(symbol) for symbol in campaign.species])
        proposals += self._given(campaign.learned)
        proposals += self._proposals("bootstrap", first)
        return proposals + self._proposals("test", campaign.test)

    def _proposals(self, origin: Origin, structures: Sequence[Atoms]) -> list[Proposal]:
        """The proposals of these structures, one for each different structure."""
        unique = {digest(structure): structure for structure in structures}
        self._anew += [self.file_of(key) for key, one in unique.items() if self._store.put_structure(one)]
        return [Proposal(structure=key, origin=origin) for key in unique]

    def _given(self, data: Sequence[Atoms]) -> list[Proposal]:
        """Labels given with the request, kept apart from the label store because their reference is unknown."""
        labelled = {digest(structure): structure for structure in data}
        return [self._with_label(one, labelled[one.structure]) for one in self._proposals("initial", data)]

    def _with_label(self, proposal: Proposal, structure: Atoms) -> Proposal:
        file = self._store.relative(str(given_file(self._store.given, structure)))
        if not has_label(self._store.absolute(file)):
            self._anew.append(file)
            keep_given(self._store.given, structure)
        return proposal.model_copy(update={"file": file})

    def model(self) -> TrainedPotential | None:
        """The campaign's copy of the given model."""
        model, folder = self._campaign.model, self._store.models / "given"
        if model is None:
            return None
        try:
            return TrainedPotential.load(folder)
        except ModelCorrupt:
            self._anew.append(self._store.relative(str(folder)))
            return TrainedPotential.load(model.save(folder))

    def file_of(self, structure: str) -> str:
        return self._store.relative(str(structure_file(self._store.structures, structure)))

    def adopted(self, member: Member) -> TrainedMember:
        """A member of the given model as a trained member; its errors are unknown."""
        model = Weights(path=self._store.relative(str(member.file.path)), digest=member.file.digest)
        return TrainedMember(model=model, errors={})

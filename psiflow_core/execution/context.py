"""The context of a user's script: its pools of workers, and the verbs that start tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ase import Atoms

from psiflow_core.components import Component, Spec
from psiflow_core.errors import OptionError
from psiflow_core.execution.context_file import read_context
from psiflow_core.execution.verbs import evaluate, label, relax, sample, train
from psiflow_core.execution.verbs.dispatcher import Dispatcher
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.inputs import TOLERATED
from psiflow_core.execution.verbs.places import Places, taken
from psiflow_core.execution.verbs.relax import Relaxation, Relaxations
from psiflow_core.execution.verbs.sample import Runs
from psiflow_core.execution.workers import Workers
from psiflow_core.labels.dataset import Dataset
from psiflow_core.potentials.metrics import ErrorTable
from psiflow_core.potentials.trained import Member, TrainedPotential
from psiflow_core.sampling.monitor import Limits
from psiflow_core.sampling.sample import SOUND, Trajectory
from psiflow_core.sampling.segments import Segments


class Context(Workers):
    """Pools of workers, shared or one for each kind of work, and verbs that start tasks on them.

    ``Context()`` is this machine. ``Context(psiflow.executor("local", workers=4))`` is one pool for everything;
    ``Context(train=…, sample=…, label=…)`` gives each kind of work a pool. The same spec object given twice is
    one shared pool. Use it as a context manager: leaving it ends every process that it started.

    A verb checks its arguments and returns a `Handle` at once. A handle given to another verb is a dependency.
    Results are kept in the folder by the content of the request. A script that was stopped or killed can be run again
    with the same folder: it finds the finished results and computes the rest. A folder serves one process at a time,
    and cannot be a campaign's folder.

    Args:
        everything: the executor of all kinds of work without their own executor.
        train, sample, label: the executor of this kind of work.
        folder: for the results of verbs, and, in `pools`, for scripts and logs of workers. Verbs need it; without it
            workers use a temporary folder.
        labels: a store of labels shared by folders and campaigns; by default the folder's own.

    Raises:
        OptionError: an argument is not an executor.
        PluginNotFound: no executor has this name.
    """

    def __init__(
        self,
        everything: Spec | Component | str = "local",
        /,
        *,
        train: Spec | Component | str | None = None,
        sample: Spec | Component | str | None = None,
        label: Spec | Component | str | None = None,
        folder: str | Path | None = None,
        labels: str | Path | None = None,
    ) -> None:
        self._folder = None if folder is None else Path(folder).absolute()
        pools = None if self._folder is None else self._folder / "pools"
        super().__init__(everything, train=train, sample=sample, label=label, folder=pools)
        self._labels = None if labels is None else Path(labels).absolute()
        self._dispatcher: Dispatcher | None = None
        self._ending = contextlib.ExitStack()

    @classmethod
    def from_yaml(cls, file: str | Path, *, folder: str | Path | None = None, labels: str | Path | None = None) -> Self:
        """The context that a YAML file describes.

        Its keys are `everything`, `train`, `sample` and `label`, each an executor or the name of a pool; `pools`,
        shared pools by name; `folder` and `labels`. An executor is its name, or `{name: …}` with its options.
        Relative paths start from the file's folder.

        Args:
            folder, labels: instead of those in the file.

        Raises:
            OptionError: the file cannot be read, or has a wrong key or option; with file, line and column.
            PluginNotFound, PluginBroken: an executor is not installed, or its plugin does not load.
        """
        found = read_context(file)
        places = {name: place for name, place in (("folder", folder), ("labels", labels)) if place is not None}
        return cls(found.everything, **{**found.arguments, **places})

    def label(
        self,
        structures: Any,
        reference: Spec | Component | str,
        *,
        tolerate: float | int = TOLERATED,
    ) -> Handle[Dataset, Atoms]:
        """Label structures. A label in the store is not computed again.

        Args:
            structures: a structure, the path of a file, a list of these, a `Dataset`, trajectories (every kept frame),
                relaxations, or a handle of any of them. A single atom is labelled in the spin state given by its
                ``info["spin"]``.
            reference: `psiflow.reference(…)`, or a name.
            tolerate: how many labels may fail: a fraction (0.3) or a number (3).

        Returns:
            A handle of a `Dataset` in the order of the structures. It contains failed structures, without a label:
            see `Dataset.failures`. `Handle.as_completed` gives each labelled structure as soon as it has its label.

        Raises:
            StructureError: a structure is not fit for a calculation.
            OptionError: `reference` is not a reference, or the context has no folder.
            TooManyFailures: by the handle: more labels have failed than are tolerated.
        """
        return label.label(self._verbs(), structures, reference, tolerate)

    def train(
        self,
        potential: Spec | Component | str,
        data: Any,
        *,
        members: int | None = None,
        parent: Any = None,
        steps: int | None = None,
        validation: Any = 0.1,
        atomic_energies: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> Handle[TrainedPotential, Member]:
        """Train a committee on the labelled structures of a data set.

        The energies of free atoms are labelled by the data's reference. Free atoms among the data, and
        ``atomic_energies``, come first.

        Args:
            potential: `psiflow.potential(…)`, or a name.
            data: a `Dataset`, labelled structures, or a handle of these.
            members: number of members of the committee; by default that of the parent, or 4 without a parent.
            parent: a `TrainedPotential` of the same potential to start from, or its handle.
            steps: gradient steps; None leaves the number to the potential.
            validation: the fraction of the data that is held out, evenly spread, or a separate labelled data set.
            atomic_energies: energies of free atoms, by symbol. [eV]
            seed: the committee's seed; the members' seeds are derived from it.

        Returns:
            A handle of a `TrainedPotential`.

        Raises:
            OptionError: an argument is out of range; by the handle: no structure has a label, or the energies of free
                atoms are not known.
            TaskFailed: by the handle: a member, or a free atom, has failed.
            CampaignError: by the handle: data and free atoms have different zeros of energy.
        """
        asked = {"members": members, "steps": steps, "validation": validation, "seed": seed}
        return train.train(self._verbs(), potential, data, parent, atomic_energies=atomic_energies, **asked)

    def sample(
        self,
        model: Any,
        sampler: Spec | Component | str,
        walkers: Any,
        *,
        steps: int,
        stride: int | None = None,
        check_every: int = 10,
        bias: Any = (),
        limits: Limits = SOUND,
        seed: int = 0,
        tolerate: float | int = TOLERATED,
    ) -> Handle[Runs, Trajectory]:
        """Move walkers. Walkers on the same worker share batched predictions.

        The first member of the committee moves the walkers, as in a campaign; all members predict at each check.

        Args:
            model: a `TrainedPotential`, its folder, or its handle.
            sampler: `psiflow.sampler(…)`, or a name.
            walkers: structures, or trajectories, which continue exactly from their end under the same biases.
            steps: number of steps of each walker.
            stride: steps between two stored frames; None stores none.
            check_every: steps between two checks of the monitor.
            bias: for walkers that start from structures: biases, an `Umbrella`, or a list of these.
            limits: the limits at which the monitor stops a walker.
            seed: the walkers' seeds are derived from it.
            tolerate: how many walkers may fail: a fraction (0.3) or a number (3).

        Returns:
            A handle of trajectories, in the order of the walkers; `Trajectory.most_uncertain` is the structure with the
            largest disagreement of the committee. `Handle.as_completed` gives each trajectory as soon as it ends.

        Raises:
            OptionError, StructureError: an argument cannot be used.
            TooManyFailures: by the handle: more walkers have failed than are tolerated.
        """
        segment = Segments(steps=steps, check_every=check_every, stride=stride)
        return sample.sample(self._verbs(), model, sampler, walkers, segment, bias, limits, seed, tolerate)

    def relax(
        self,
        model: Any,
        structures: Any,
        *,
        fmax: float = 0.01,
        steps: int = 500,
        cell: bool = False,
        pressure: float = 0.0,
        tolerate: float | int = TOLERATED,
    ) -> Handle[Relaxations, Relaxation]:
        """Relax structures to minima of the energy, or of the enthalpy. `FixAtoms` is honoured.

        Args:
            model: a `TrainedPotential` (its mean), its folder or its handle; a reference, which stores a label for
                each step; or an ASE calculator by name: ``psiflow.reference("ase", calculator="emt")``,
                ``psiflow.AseCalculator(…)``.
            structures: as in `label`.
            fmax: the largest force at the end. With ``cell``, the deviation of the stress from the external pressure,
                times the volume per atom, is below this number in eV too. [eV/Å]
            steps: largest number of steps of the optimiser.
            cell: whether the cell relaxes too.
            pressure: external pressure on the cell. [bar]
            tolerate: how many relaxations may fail: a fraction (0.3) or a number (3). Reaching `steps` is not a
                failure: see `Relaxation.converged`.

        Returns:
            A handle of relaxations, in the order of the structures.

        Raises:
            OptionError, StructureError: an argument cannot be used.
            TooManyFailures: by the handle: more relaxations have failed than are tolerated.
        """
        return relax.relax(
            self._verbs(),
            model,
            structures,
            fmax=fmax,
            steps=steps,
            cell=cell,
            pressure=pressure,
            tolerate=tolerate,
        )

    def evaluate(self, model: Any, data: Any) -> Handle[ErrorTable, ErrorTable]:
        """Compare the predictions of a potential with labels.

        Args:
            model: a `TrainedPotential` (its mean), its folder, or its handle.
            data: a `Dataset`, labelled structures, a mapping of these by the name of the set, or handles of these. The
                structures of a data set are grouped by the ``subset`` of their provenance, if they have one.

        Returns:
            A handle of errors by set, with `all` for all structures; `print` shows them as a table.

        Raises:
            TaskFailed: by the handle: the model could not be evaluated.
            OptionError: by the handle: no structure has a label.
        """
        return evaluate.evaluate(self._verbs(), model, data)

    def close(self) -> None:
        """End every process of this context. Unfinished verbs are abandoned; finished results are kept."""
        with self.lock:
            dispatcher, self._dispatcher = self._dispatcher, None
        try:
            if dispatcher is not None:
                dispatcher.close()
        finally:
            try:
                super().close()
            finally:
                self._ending.close()

    def _verbs(self) -> Dispatcher:
        """The dispatcher of verbs; the first verb starts it and locks the folder.

        Raises:
            OptionError: the context has no folder.
            CampaignError: the folder is in use, belongs to a campaign, or cannot be written.
        """
        if self._folder is None:
            raise OptionError("this context has no folder to keep results in; give one: psiflow.Context(folder=…)")
        with self.lock:
            if self._dispatcher is None:
                self._ending.enter_context(taken(self._folder))
                places = Places(self._folder, self._labels or self._folder / "labels")
                self._dispatcher = Dispatcher(self, places)
            return self._dispatcher

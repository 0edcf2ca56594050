"""MACE and NequIP in one committee: each finds structures that the other does not know, and both learn from them.

Their packages cannot be installed together. MACE is in this environment; NequIP has a separate one:

    psiflow env create nequip torch psiflow-nequip psiflow-openmm-sampler
    python examples/two_architectures.py

A few minutes on two cores. The report compares both on unseen structures.
"""

from pathlib import Path

from ase.io import read

import psiflow_core as psiflow

here = Path(__file__).parent

learning = psiflow.OnlineLearning(
    potential=[psiflow.potential("mace", r_max=4.5), psiflow.potential("nequip", r_max=4.5)],
    sampler=psiflow.sampler("openmm", ensemble="nvt", temperature=500.0, timestep=0.5),
    reference=psiflow.reference("pyscf", functional="PBE", basis="def2-SVP"),
    walkers=4,
    committee=2,
    budget=psiflow.Budget(labels=30),
    bootstrap=psiflow.Bootstrap(structures=10),
    training=psiflow.Training(steps=300, warm_steps=200, final_steps=600),
)

if __name__ == "__main__":
    result = learning.run(
        start=read(here / "acetaldehyde.xyz", ":"),
        folder="campaigns/two_architectures",
        test=read(here / "acetaldehyde_test.xyz", ":10"),
    )
    print(result)

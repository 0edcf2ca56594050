"""Acetaldehyde at 600 K: a MACE committee learns PBE/def2-SVP while its walkers explore."""

from pathlib import Path

import psiflow_core as psiflow

here = Path(__file__).parent
learning = psiflow.OnlineLearning(
    potential=psiflow.potential("mace", max_L=1),
    sampler=psiflow.sampler("openmm", ensemble="nvt", temperature=600.0),
    reference=psiflow.reference("pyscf", functional="pbe", basis="def2-svp", density_fitting=True),
    walkers=8,
    committee=3,
    budget=psiflow.Budget(labels=60),
    walking=psiflow.Walking(segment=psiflow.Segments(steps=1000)),
    training=psiflow.Training(steps=400, warm_steps=300, final_steps=1200),
)
result = learning.run(
    start=here / "acetaldehyde.xyz",
    folder="campaigns/acetaldehyde",
    test=here / "acetaldehyde_test.xyz",  # from a GFN2-xTB trajectory at 800 K, labelled here
)
print(result)

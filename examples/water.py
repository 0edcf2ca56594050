"""Water at 300 K and 1 bar: a MACE committee learns PBE-D3(BJ) from CP2K, including the stress.

Needs CP2K (on Debian: apt-get install cp2k).
"""

from pathlib import Path

import numpy as np
from ase import units

import psiflow_core as psiflow

here = Path(__file__).parent
learning = psiflow.OnlineLearning(
    potential=psiflow.potential("mace", r_max=4.0, max_L=0),  # r_max is more than half the cell: images count
    sampler=psiflow.sampler("openmm", ensemble="npt", temperature=300.0, pressure=1.0),
    reference=psiflow.reference(
        "cp2k",
        functional="pbe",
        dispersion="d3bj",
        basis_file="BASIS_MOLOPT_UZH",  # no diffuse functions, which cost much in a small cell
        basis_of={"O": "TZVP-MOLOPT-PBE-GTH-q6", "H": "TZVP-MOLOPT-PBE-GTH-q1"},
        cutoff=800.0,  # forces within 1.3 meV/Å (RMS) of those at 1200 Ry; at 600 Ry within 22
        rel_cutoff=30.0,
        eps_scf=1e-5,
        eps_default=1e-10,
        vacuum=3.0,
        max_scf=40,
    ),
    walkers=4,
    committee=2,
    budget=psiflow.Budget(labels=30),
    bootstrap=psiflow.Bootstrap(structures=10),
    walking=psiflow.Walking(segment=psiflow.Segments(steps=200, stride=20)),
    training=psiflow.Training(steps=400, warm_steps=200, final_steps=800),
)
result = learning.run(
    start=here / "water.xyz",
    folder="campaigns/water",
    test=here / "water_test.xyz",  # GFN1-xTB at 400 K and 0.85 to 1.15 g/cm³, labelled here
)
print(result)

walked = [frame for segment in result.trajectories[-2 * learning.trajectories :] for frame in segment.frames]
densities = [sum(frame.get_masses()) / units.mol / (frame.get_volume() * 1e-24) for frame in walked]
print(f"density in the last segments: {np.mean(densities):.2f} ± {np.std(densities):.2f} g/cm³")

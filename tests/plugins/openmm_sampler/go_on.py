"""The second half of a trajectory, in a process of its own: `python go_on.py FOLDER`."""

import json
import sys
from pathlib import Path

from ase.calculators.lj import LennardJones
from psiflow_openmm_sampler.sampler import OpenMM

from psiflow_core.components import SamplingTask, Walker
from psiflow_core.structures import from_plain, to_plain

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
walker = Walker(from_plain(job["structure"]), bytes.fromhex(job["state"]), step=20)
calculator = LennardJones(sigma=3.4, epsilon=0.0103, rc=6.0)
end = OpenMM(**job["options"]).sample(walker, calculator, SamplingTask(20, seed=99), lambda *_: None)
(folder / "end.json").write_text(json.dumps(to_plain(end.walker.structure)))

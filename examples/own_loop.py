"""Another learning loop: a nickel cluster, learned from the structures that are farthest from the data set.

Each turn, walkers explore with the newest committee, and their last structures are relaxed with it. The structures that
differ most from the data set, by the potential's own features, are labelled. Run it again after a stop: it continues.
"""

from ase.cluster import Icosahedron

import psiflow_core as psiflow

reference = psiflow.reference("ase", calculator="emt")
potential = psiflow.potential("mace", r_max=4.0, num_channels=16, max_L=0, max_ell=2)
sampler = psiflow.sampler("ase", ensemble="nvt", temperature=400.0, timestep=1.0)
diverse = psiflow.selection("diverse", count=6)
cluster, limits = Icosahedron("Ni", 2), psiflow.Limits(deviation=0.5)


if __name__ == "__main__":
    with psiflow.Context(psiflow.executor("local", workers=2), folder="campaigns/own_loop") as context:
        data = context.label(psiflow.Bootstrap(structures=20).make([cluster], seed=0), reference)
        model = context.train(potential, data, members=2, steps=150)
        for turn in range(3):
            runs = context.sample(model, sampler, [cluster] * 4, steps=200, stride=50, seed=turn, limits=limits)
            relaxed = context.relax(model, [run.structure for run in runs.result()], fmax=0.1, steps=50)
            met = [*(frame for run in runs.result() for frame in run.frames), *relaxed.result().structures]
            data += context.label(diverse.choose(met, data.result(), model.result()), reference)
            model = context.train(potential, data, parent=model, steps=100)
        minimum = context.relax(model, cluster, fmax=0.02)
        print(context.evaluate(model, {"data": data, "minimum": context.label(minimum, reference)}).result())

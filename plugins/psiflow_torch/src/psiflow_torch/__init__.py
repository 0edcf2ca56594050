"""The common foundation of potentials on PyTorch: graphs, training, model files and predictions.

A plugin derives its component from `psiflow_torch.potential.TorchPotential`, which needs no torch, and its network from
`psiflow_torch.architecture.Architecture`. This package registers no component of its own.
"""

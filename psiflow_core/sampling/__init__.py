"""Walkers moved together: the monitor, batched predictions, biases and collective variables."""

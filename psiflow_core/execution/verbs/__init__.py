"""The verbs of a `Context`: single tasks, for user-written learning loops."""

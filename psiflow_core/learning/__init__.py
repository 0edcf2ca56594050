"""The loop: a pure state machine over a journal, its policies, and the driver around it."""

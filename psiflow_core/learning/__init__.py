"""Online learning: policies, the state machine, and its driver."""

"""Selection strategies: which structures are worth a label, and in which order."""

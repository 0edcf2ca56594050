"""Other Python environments: their components, the choice of one for a task, and their installation."""

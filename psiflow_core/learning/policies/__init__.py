"""How a campaign is to go: settings, budgets, walkers, selection, training."""

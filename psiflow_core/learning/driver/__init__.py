"""The driver of a campaign: its journal, its folder, its session."""

"""The pure part of a campaign: state, events, plan and termination."""

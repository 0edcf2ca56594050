"""Nothing outlives its driver, or takes more than it may: guards, limits, claims and messages between processes."""

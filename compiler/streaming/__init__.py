"""Values that are never whole in memory: which they are, and how they are computed in passing."""

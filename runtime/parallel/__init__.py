"""Ranks that hold parts of one batch: the group, what it sums and gathers, how that is packed."""

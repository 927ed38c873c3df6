"""A compiled network: parameters, linearizations, factors, and what a user may give it."""

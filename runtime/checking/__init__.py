"""Holding kernels to account: their numbers, and what they compile to."""

"""Solvers of (C + damping·I) x = g: direct ones on blocks, and conjugate gradients."""

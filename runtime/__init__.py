"""Backends, compiled models, curvature, solvers, optimizers, training, and diagnostics."""

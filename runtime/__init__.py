"""Executors, compiled models, curvature, solvers, optimizers, training, data and diagnostics."""

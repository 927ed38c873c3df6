"""Executors, compiled models, curvature, solvers, optimizers, training and the command line."""

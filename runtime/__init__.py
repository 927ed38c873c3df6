"""Executors, compiled models, curvature, solvers, optimizers, training, data and diagnostics."""

from .versions import require

require("torch")

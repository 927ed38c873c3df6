"""Curvatures: what stands for the Hessian, by blocks or by products."""

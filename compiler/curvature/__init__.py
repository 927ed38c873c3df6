"""Kronecker statistics, recursive curvature and stored Jacobians, as graphs."""

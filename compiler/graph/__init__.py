"""Nodes, the op set, scalar expressions, rewrites, costs, memory; errors and checked options."""

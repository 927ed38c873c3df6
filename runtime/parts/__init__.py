"""The parts of a second-order optimizer: curvatures, solvers, step rules, and their saved state."""

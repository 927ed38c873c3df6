"""From a graph to fused kernels: which nodes share one, and the code generated for it."""

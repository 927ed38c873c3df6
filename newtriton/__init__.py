"""newtriton: a compiler for second-order neural-network training."""

"""A compiled network: what runs its programs, linearizations, factors, from PyTorch's modules."""

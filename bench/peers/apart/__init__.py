"""What runs in a process without PyTorch: networks in JAX, and who makes calls there by name."""

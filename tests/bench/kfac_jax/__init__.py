"""The comparison with kfac-jax."""

"""What is kept on disk between runs: where that is safe, whole files, compiled kernels."""

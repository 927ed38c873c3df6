"""Kernel algorithms, each beside its PyTorch oracle; knows neither compiler nor runtime."""

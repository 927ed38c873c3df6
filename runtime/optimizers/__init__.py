"""Optimizers: parts put together, the papers' presets, and torch.optim's as baselines."""

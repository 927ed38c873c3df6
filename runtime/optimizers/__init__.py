"""Optimizers: parts put together, the papers' presets, torch.optim's alone or preconditioned."""

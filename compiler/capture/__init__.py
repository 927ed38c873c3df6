"""Someone else's network, a `torch.nn.Module`, as a layer: exported, folded, built from a table."""

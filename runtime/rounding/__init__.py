"""What rounding may do to a value: running error analysis of graphs, by PyTorch's operators."""

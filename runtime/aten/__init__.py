"""Running graphs on PyTorch's operators."""

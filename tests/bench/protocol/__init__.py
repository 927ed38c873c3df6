"""What the experiments of papers share."""

"""What the experiments of papers share: their settings, data, training curves, pictures, rows."""

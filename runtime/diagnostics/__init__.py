"""What papers print of a curvature: errors by layer, alignment of updates, spectra."""

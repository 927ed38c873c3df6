"""From a network description to derivative graphs and generated kernels; nothing runs here."""

"""From a network description to derivative graphs; no training here."""

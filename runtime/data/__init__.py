"""Data sets by name, their preprocessing, and batches of them, in memory or read lazily."""

"""Data sets and batches in memory."""

"""Batches taken in pieces: what is a sum over samples is added up, piece after piece."""

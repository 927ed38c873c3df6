"""Kernels of streams: wide values computed tile by tile, in registers, and what leaves them."""

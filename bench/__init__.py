"""Measurements; each module is run as `python -m newtriton.bench.NAME`."""

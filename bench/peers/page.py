"""The page of the rows."""
from pathlib import Path
RESULTS, PAGE = Path("bench/results/cpu-peers.json"), Path("docs/benchmarks/peers.md")
def write(results, path): ...

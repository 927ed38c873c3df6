"""The experiments of four papers: `python -m newtriton.bench.paper NAME`, a file for each kind."""

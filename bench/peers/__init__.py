"""The same work side by side with the peers: `python -m newtriton.bench.peers`."""

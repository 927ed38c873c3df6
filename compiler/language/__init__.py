"""What a user writes: layers, networks, losses; tracing them to the forward graph."""

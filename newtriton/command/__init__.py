"""The command line: a file per command, and what its options can name."""

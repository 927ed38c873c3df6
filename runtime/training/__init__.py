"""Training runs: the loop over epochs, records, pictures, and folders to resume from."""

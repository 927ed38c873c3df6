"""Reports of runs: what they have recorded, as charts, as files and as one page."""

"""What second-order passes through attention and large vocabularies take: counted, and on a GPU."""

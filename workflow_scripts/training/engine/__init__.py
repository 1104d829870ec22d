"""One forward per image: trees of shared prefixes, in tensors alone."""

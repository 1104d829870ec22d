"""Generation, scoring protocols, statistics and galleries."""

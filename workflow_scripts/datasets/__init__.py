"""Records and readers of raw formats, images, splits and preference pairs. Imports no torch."""

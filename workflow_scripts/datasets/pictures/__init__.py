"""Image files as pixels: formats, DICOM, near-duplicates."""

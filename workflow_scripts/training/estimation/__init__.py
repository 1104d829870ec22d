"""What a training would need and take, from shapes and counts alone: no weight, row or image is read for it."""

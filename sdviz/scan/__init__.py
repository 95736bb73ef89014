"""Cluster labels from images alone: SimCLR, SCAN, self-labelling, k-means, and how well clusters agree with classes."""

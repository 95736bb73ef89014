"""Cluster labels from images alone: SimCLR, SCAN, self-labelling, k-means, and how they agree with classes."""

"""Cluster labels from images alone: SimCLR, SCAN, self-labelling and k-means; agreement with classes."""

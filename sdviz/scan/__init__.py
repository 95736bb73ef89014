"""Cluster labels: the classifier that learns given ones."""

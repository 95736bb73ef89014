"""The configuration of a run: one validated tree, YAML in and out."""

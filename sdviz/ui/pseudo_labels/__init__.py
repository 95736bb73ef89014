"""The page Pseudo-labels."""

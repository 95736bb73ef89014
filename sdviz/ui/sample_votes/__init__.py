"""The page Sample votes."""

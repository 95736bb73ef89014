"""The page Outlier lab."""

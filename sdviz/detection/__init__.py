"""The detector: its losses (Eq. 4-5), training, neighbours, score (Eq. 6) and metrics."""

"""Kept values, all listed in `kept.KEPT`, and background work, all listed in `background.LANES`."""

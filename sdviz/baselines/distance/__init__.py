"""Methods that score by distances in a fixed network's features."""

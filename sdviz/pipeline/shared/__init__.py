"""What several stages use: the training labels, the sets to score, and pictures made in shards."""

"""Methods that score by the cluster head's logits."""

"""What is known of a run before it begins: faults that would end it, and its time and disk space."""

"""What is known of a run before it begins: its stages, what would end it, how long it takes."""

"""Methods that fine-tune a network on ID images first."""

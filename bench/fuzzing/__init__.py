"""The readers that `bench/fuzz.py` drives, each with inputs of its own and another reading to compare with."""

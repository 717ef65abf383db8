"""Invariants, a file each: pure functions from what was seen to a list of violations, empty where it holds."""

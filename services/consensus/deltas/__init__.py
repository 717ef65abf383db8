"""The way of deltas: a durable log of what memory nodes changed, and the streams on which it reaches the others."""

"""What `ndml tune` does: weights of the signals out of a user's own feedback. learning.py and measures.py are mathematics, asking.py asks.

Needs numpy: imported by the command when it runs, not when the command line starts.
"""

"""How a memory node and the others that hold the same owners stay equal: the stream of updates, and the sweep that mends what it missed.

publisher, subscriber   what this node wrote to a consensus node; what others wrote from it (attachment.py: the stream that both share)
sweep                   compares owners with each partner now and then, and mends what differs (owners.py, reconcile.py)
servicer                the same, asked by a partner
phase                   joining and leaving the suite: sweeps until nothing is left to move
signing                 signatures of updates, where a roster is set

The cores know time, disk and network as parameters: tests/sim runs them on a virtual clock.
"""

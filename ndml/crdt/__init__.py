"""What replicas of memory agree on, pure: no grpc, no protobuf, no clock, no disk (but for `keys`). Import its modules by their full names.

clock                hybrid logical clock with a bounded lead
causal               dots, causal contexts, and the join of dotted values that register, set and record share
register, orset      multi-value register; add-wins set without tombstones
counters, existence  counters that go up and down; how often an id was made and removed
                     (`orset` and `counters` are for those who build on this: contents carry their links, and feedback only grows)
record               all of a trace that is replicated, as one lattice; its digest
blocks, strength     states of many traces joined at once; what one replica's own feedback added
digests, iblt        digests of owners and of owners in buckets; which records differ, for the price of the difference
oscillator, resolve  VO2 oscillators; which of several siblings is shown
envelope, roster, audit  signed updates, whom to believe, and who said two things at once
"""

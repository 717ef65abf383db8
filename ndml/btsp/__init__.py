"""The science of NDML's memory, pure: no grpc, no protobuf, no clock, no disk. Import its modules by their full names.

code, associative    sparse codes and the BTSP associative index on binary synapses (Wu & Maass 2025)
gate, calibration    what a new trace is to what is stored, and where the thresholds of an embedding model lie
plateau              calcium of a stream: how strongly a trace is encoded
state                the state of all traces of a partition, one block of arrays
timescales           eight decaying accumulators in log space
stability, capture   spaced-repetition stability (FSRS-6); synaptic tagging and capture
credit               credit over behavioural timescales (Bittner 2017, Milstein 2021)
salience, forgetting, lifecycle, homeostasis, consolidation
spiking, neuromorphic  export of recall as a NIR graph
"""

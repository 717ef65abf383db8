"""The arithmetic of the associative index, four times over, bit for bit the same.

ports        what a set of kernels does
reference    the truth: plain numpy, one query at a time, for reading and for tests
native       C (native.c), built with the package where there is a compiler
vectorised   numpy over a whole batch, where there is none
torch_ops    tensors, for a GPU; triton_ops has its bit-sliced sum
"""

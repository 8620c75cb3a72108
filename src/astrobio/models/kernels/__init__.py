"""Triton kernels of the models; imported only where a CUDA device is used."""

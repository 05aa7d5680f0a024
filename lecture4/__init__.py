"""Sparse coding, autoencoders and convolutional networks as pure JAX functions."""

__version__ = '0.2.0'

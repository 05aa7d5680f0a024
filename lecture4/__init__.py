"""Sparse coding, autoencoders and convolutional networks as pure JAX functions.

`ops` works on arrays; `sparse`, `classifiers`, `autoencoder`, `vision` and `language` are the models, `features` and
`figures` what is measured and drawn of them; `data` reads and batches; `train` runs experiments. Each package says
which five functions to start from.
"""

__version__ = '0.2.0'

"""Sparse coding: codes with certificates, learned dictionaries, learned encoders, restoration of images.

Start from:

- `sparse.solvers.encode`: codes of a batch of signals by the fastest solver, each with a duality gap.
- `sparse.dictionary.learners.make`: (init, step) of a dictionary learner.
- `sparse.implicit.codes`: codes with implicit gradients, where `jax.grad` has to pass through them.
- `sparse.lista.encode`: codes predicted by an unrolled network.
- `sparse.recovery.denoise`: an image from the sparse codes of its patches.
"""

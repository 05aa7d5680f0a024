"""Data sets, batches as pure functions of (seed, n), and what is done to images and sentences before a model.

Start from:

- `data.images.load`: training and test images of a labeled source (a name, dir:, npz:, csv:).
- `data.images.load_signals`: patches or whole images as unlabeled vectors.
- `data.sources.load`: a source as it is stored.
- `data.batches.indices`: the rows of batch n.
- `data.detection.load`: images with boxes.
"""

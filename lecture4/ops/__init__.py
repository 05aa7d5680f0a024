"""Functions from arrays to arrays, on which everything else is built; nothing here knows of models, data or training.

Start from:

- `ops.patches.whiten`: contrast-normalized, whitened patches, and the affine map that whitens others.
- `ops.prox.soft_threshold`: the proximal operator of the L1 norm, with its gradient at the kink.
- `ops.linalg.pca`: principal components as an affine map, which `ops.linalg.apply` applies.
- `ops.interpolate.interpolate`: images sampled at real coordinates, for spatial transformers.
- `ops.boxes.nms`: non-maximum suppression of static shape.
"""

"""Matplotlib figures of arrays, without knowledge of training.

Start from:

- `figures.dictionary.atoms`: the atoms of a dictionary as tiles.
- `figures.label_efficiency.learning_settings`: which images each learning setting sees.
- `figures.latent.latent_grid`: images decoded from a grid of latent points.
- `figures.detection.detections`: images with detections and objects.
- `figures.curves.learning_curves`: metrics against steps.
"""

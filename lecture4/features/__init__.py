"""What representations are worth, whatever learned them: accuracy with few labels, invariance, what units respond to.

Start from:

- `features.self_taught.encode_images`: dense patches of images, encoded and pooled.
- `features.label_efficiency.label_curve`: accuracy of a linear classifier against the number of labels.
- `features.linear_probe.fit`: softmax regression on fixed features.
- `features.gabor.fit_gabors`: Gabor functions fitted to atoms or filters.
- `features.stimulus.maximize`: the input of fixed norm to which a unit responds most.
"""

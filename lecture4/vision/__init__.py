"""Convolutional networks and what grew on them: published weights, deconvnets, spatial transformers, detection.

Start from:

- `vision.models.registry.create`: a flax network by name: alexnet, vgg_d, googlenet, resnet_50_v1_5, ...
- `vision.weights.pretrained.load`: weights of torchvision or timm as its variables, and back.
- `vision.multi_crop.predict_probs`: class probabilities by the papers' test crops.
- `vision.deconvnet.project`: what a unit responds to, projected to pixels.
- `vision.detection.faster_rcnn.predict`: boxes, scores and classes of objects.
"""

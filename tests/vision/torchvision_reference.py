"""Run by a Python that has torch and torchvision: random networks' weights, pictures and logits to a folder.

A network of timm too where that is installed. Statistics and scales of batch norm are made random, so that
nothing hides behind ones and zeros.
"""

import importlib.util
import sys

import numpy as np
import torch
from torchvision import models

NAMES = {
    'alexnet': {}, 'vgg11': {}, 'vgg11_bn': {}, 'resnet18': {}, 'resnet50': {},
    'googlenet': {'init_weights': True, 'transform_input': False},
}  # fmt: skip


def main(folder):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 224, 224)
    np.save(f'{folder}/x.npy', x.numpy())
    for name, options in NAMES.items():
        network = getattr(models, name)(**options).eval()
        with torch.no_grad():
            for key, value in network.state_dict().items():
                if 'running_mean' in key:
                    value.normal_(0, 0.1)
                if 'running_var' in key:
                    value.uniform_(0.5, 2)
            logits = network(x)
        torch.save(network.state_dict(), f'{folder}/{name}.pth')
        np.save(f'{folder}/{name}.npy', logits.numpy())
    if importlib.util.find_spec('timm'):
        import timm

        network = timm.create_model('vgg11').eval()
        torch.save(network.state_dict(), f'{folder}/timm_vgg11.pth')
        with torch.no_grad():
            np.save(f'{folder}/timm_vgg11.npy', network(x).numpy())
    legacy = models.alexnet().state_dict()
    torch.save(legacy, f'{folder}/legacy.pth', _use_new_zipfile_serialization=False)
    np.save(f'{folder}/legacy.npy', legacy['features.0.weight'].numpy())


if __name__ == '__main__':
    main(sys.argv[1])

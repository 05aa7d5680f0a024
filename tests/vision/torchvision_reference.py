"""Run by a Python that has torch and torchvision: random networks' weights, images and logits to a folder.

A network of timm too where that is installed. Statistics and scales of batch norm are made random, so that
nothing hides behind ones and zeros.
"""

import argparse
import importlib.util
import pathlib
import sys

import numpy as np
import torch
from torchvision import models

NAMES = {
    'alexnet': {},
    'vgg11': {},
    'vgg11_bn': {},
    'resnet18': {},
    'resnet50': {},
    'googlenet': {'init_weights': True, 'transform_input': False},
}


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
    checkpoints(pathlib.Path(folder))
    legacy = models.alexnet().state_dict()
    torch.save(legacy, f'{folder}/legacy.pth', _use_new_zipfile_serialization=False)
    np.save(f'{folder}/legacy.npy', legacy['features.0.weight'].numpy())


def checkpoints(folder):
    """What training scripts save of a ResNet-18."""
    network = models.resnet18()
    network.load_state_dict(torch.load(folder / 'resnet18.pth'))
    state = network.state_dict()
    backbone = {name: value for name, value in state.items() if not name.startswith('fc.')}
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    network.load_state_dict(torch.load(folder / 'resnet18.pth'))
    everything = {
        'model': network.state_dict(),
        'optimizer': optimizer.state_dict(),
        'scheduler': torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10).state_dict(),
        'scaler': torch.amp.GradScaler('cpu').state_dict(),
        'args': argparse.Namespace(lr=0.1, device=torch.device('cpu'), output=pathlib.Path('/out')),
        'best_acc': np.float64(0.7),
        'rng': torch.get_rng_state(),
        'numpy_rng': np.random.get_state(),
        'shape': torch.Size([1]),
        'dtype': torch.float32,
        'epoch': 1,
    }
    saved = {
        'everything': everything,
        'model_state_dict': {'model_state_dict': state, 'epoch': 1},
        'net': {'net': state, 'acc': 1.0},
        'model_ema': {'model_ema': state},
        'module': network,
        'data_parallel': torch.nn.DataParallel(network),
        'backbone': backbone,
        'parameters': dict(network.named_parameters()) | dict(network.named_buffers()),
        'ddp_and_compile': {f'module._orig_mod.{name}': value for name, value in state.items()},
    }
    (folder / 'checkpoints').mkdir()
    for name, obj in saved.items():
        torch.save(obj, folder / f'checkpoints/{name}.pth')


if __name__ == '__main__':
    main(sys.argv[1])

"""Faster R-CNN with ResNet-50 and a feature pyramid on a CPU compared with torchvision's: same weights, same boxes.

    LECTURE4_TORCH_PYTHON=/path/to/python python tests/benchmarks/detection_speed.py [--channels_last] [--training]

One image of 800 x 1088, float32, 20 classes, random weights that torch makes and ours loads. Ours and torch's (a
process of its own that waits while the other runs) take turns; medians of the time and of the CPU time. With
lecture4[onednn] installed, ours is measured with it (oneDNN) and without (plain). The stages are compiled separately;
post-processing is decoding, selection and suppression of boxes, before and after the head. A training step is the joint
loss of eight objects, gradients and momentum, batch norm frozen.

Two cores of an Intel Xeon with AVX-512 next to other jobs, torch 2.14.1, torchvision 0.29.1, --repeats 3: the same 100
detections, boxes within 1.2e-4 pixels and scores within 4.2e-7. Seconds and CPU seconds of the forward pass, and torch
/ ours of both, in three runs:

    oneDNN                   6.19   3.99   2.08  2.19
    plain                    6.21   4.29   2.07  2.03
    torch                   12.87   8.72
    oneDNN                   4.78   5.02   1.27  1.37
    plain                    5.07   5.57   1.20  1.23
    torch                    6.09   6.87
    oneDNN                   8.36   3.87   1.76  1.89
    plain                    8.66   4.36   1.70  1.68
    torch, channels last    14.76   7.33

The training step, in the second run (its losses are not compared, since they sample with other random numbers):

    oneDNN                  16.71  18.32   1.41  1.45
    plain                   16.61  18.82   1.42  1.41
    torch                   23.50  26.48

CPU milliseconds by stage (oneDNN, third run): convolutions 2744, region proposals 946 (the 3 x 3 convolution on five
levels), RoI pooling 262, dense layers 400, suppression 4. Post-processing, 12 before the head and 4 after it, is 0.4 %
of the forward pass.
"""

import argparse
import functools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import processor

NUM_CLASSES, NUM_OBJECTS, LEARNING_RATE = 20, 8, 1e-3


def objects(height, width):
    """Boxes [g, 4] and labels of the training step."""
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 0.6, (NUM_OBJECTS, 2)) * [width, height]
    sides = rng.uniform(0.1, 0.4, (NUM_OBJECTS, 2)) * [width, height]
    boxes = np.concatenate([corners, corners + sides], 1).astype(np.float32)
    return boxes, rng.integers(1, NUM_CLASSES + 1, NUM_OBJECTS)


def theirs(height, width):
    """(torchvision's model with weights that keep activations of order 1, a smooth random image)."""
    import torch  # pyright: ignore[reportMissingImports]
    from torchvision.models import detection  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    model = detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1,
        min_size=min(height, width), max_size=max(height, width),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if 'bn3.weight' in name:
                value.uniform_(0.1, 0.3)
            elif name.startswith('rpn.head') and name.endswith('weight'):
                value.normal_(0, 0.03)
            elif 'cls_score.weight' in name:
                value.normal_(0, 0.2)
            elif 'bbox_pred.weight' in name:
                value.normal_(0, 0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.requires_grad_(False)
    image = torch.rand(3, height, width)
    return model, 4 * torch.nn.functional.avg_pool2d(image - 0.5, 9, 1, 4)


def serve(options):
    """Torch's process: for each line on stdin run 'forward' or 'training' and print its seconds."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(options.threads)
    model, image = theirs(options.height, options.width)
    last = torch.channels_last if options.channels_last else torch.contiguous_format
    model = model.to(memory_format=last)
    prepared, _ = model.transform([image])
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        detected = {name: value.numpy() for name, value in model([image])[0].items()}
    folder = pathlib.Path(options.serve)
    np.savez(folder / 'weights.npz', **arrays)
    np.savez(folder / 'detected.npz', **detected, image=prepared.tensors.numpy())
    boxes, labels = objects(options.height, options.width)
    target = {'boxes': torch.tensor(boxes), 'labels': torch.tensor(labels)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9)

    def forward():
        model.eval()
        with torch.inference_mode():
            model([image])

    def training():
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        optimizer.zero_grad(set_to_none=True)
        sum(model([image], [target]).values()).backward()
        optimizer.step()

    print('ready', flush=True)
    for line in sys.stdin:
        print(*timed({'forward': forward, 'training': training}[line.strip()]), flush=True)


def timed(run):
    """(seconds, CPU seconds) of a call."""
    began, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began, time.process_time() - cpu


def ours(state, image):
    """{'forward': run, 'training': run}, {stage: run}, detections of the image."""
    import jax
    import jax.numpy as jnp
    import optax

    from lecture4.vision.detection import fast_rcnn, faster_rcnn, networks, recipe, stages
    from lecture4.vision.weights import detectors

    network = networks.create(
        'resnet_50_fpn', NUM_CLASSES, num_anchors=3, hidden_dims=(1024, 1024), dropout_rate=0.0
    )
    constants, variables = recipe.TORCHVISION_FPN, detectors.from_torch(network, state)
    image = jnp.asarray(image.transpose(0, 2, 3, 1))
    size = jnp.asarray([image.shape[1:3]], jnp.int32)
    batch = {'images': image, 'sizes': size}
    boxes, labels = objects(*image.shape[1:3])
    truth = {
        'boxes': jnp.asarray(boxes)[None],
        'labels': jnp.asarray(labels, jnp.int32)[None],
        'valid': jnp.ones((1, len(boxes)), bool),
    }
    predict = jax.jit(functools.partial(faster_rcnn.predict, network, constants))
    optimizer = optax.sgd(LEARNING_RATE, momentum=0.9)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(variables, opt_state, key):
        loss = functools.partial(faster_rcnn.loss, network, constants)
        gradients, _ = jax.grad(loss, has_aux=True)(variables, {**batch, **truth}, key)
        updates, opt_state = optimizer.update(gradients, opt_state)
        return optax.apply_updates(variables, updates), opt_state

    copy = jax.tree.map(jnp.array, variables)
    trained = [copy, optimizer.init(copy)]

    def training():
        trained[:] = jax.block_until_ready(step(*trained, jax.random.key(0)))

    def forward():
        return jax.block_until_ready(predict(variables, batch))

    # Arrays of the stages, and post-processing alone.
    given, runs = batch, {}
    for name, stage in stages.of_faster_rcnn(network, constants, variables).items():
        runs[name] = functools.partial(lambda f, b: jax.block_until_ready(f(b)), stage, given)
        given = {**given, **runs[name]()}
    logits, deltas = network.apply(variables, given['levels'], method='propose')
    anchors = constants.anchors(
        image.shape[1:3], tuple(level.shape[1:3] for level in given['levels'])
    )
    select = jax.jit(
        lambda s, d: faster_rcnn.proposals_of(
            constants, tuple(x[0] for x in s), tuple(x[0] for x in d), anchors, size[0]
        )
    )
    runs['post-processing: proposals'] = lambda: jax.block_until_ready(select(logits, deltas))
    finish = jax.jit(functools.partial(fast_rcnn.detections_of, constants))
    arguments = (*given['outputs'], given['proposals'][0], given['proposals_valid'][0], size[0])
    runs['post-processing: detections'] = lambda: jax.block_until_ready(finish(*arguments))
    return {'forward': forward, 'training': training}, runs, jax.device_get(forward())


def peer(options, folder):
    """A function kind -> (seconds, CPU seconds) of torch, whose process has written its weights and detections."""
    python = os.environ.get('LECTURE4_TORCH_PYTHON', '').split()
    if not python:
        raise SystemExit('set LECTURE4_TORCH_PYTHON to a Python with torch and torchvision')
    command = [*python, str(pathlib.Path(__file__)), '--serve', folder]
    for name in ('threads', 'height', 'width'):
        command += [f'--{name}', str(getattr(options, name))]
    command += ['--channels_last'] * options.channels_last
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline().strip() != 'ready':
        raise RuntimeError('torch ended; see its message above')

    def ask(kind):
        process.stdin.write(f'{kind}\n')
        process.stdin.flush()
        return tuple(map(float, process.stdout.readline().split()))

    return ask


def difference(detections, expected):
    """Largest differences of boxes and scores in detections that torch and ours both rank at a place."""
    valid = detections.valid[0]
    if valid.sum() != len(expected['scores']):
        return f'{valid.sum()} detections, torch {len(expected["scores"])}'
    boxes = np.abs(detections.boxes[0][valid] - expected['boxes']).max()
    scores = np.abs(detections.scores[0][valid] - expected['scores']).max()
    return f'{valid.sum()} detections, boxes within {boxes:.1e} px, scores within {scores:.1e}'


def main():
    """Print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--height', type=int, default=800)
    parser.add_argument('--width', type=int, default=1088)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--channels_last', action='store_true', help='Memory format of torch.')
    parser.add_argument('--training', action='store_true', help='Measure the training step too.')
    parser.add_argument('--serve', default='', help='Run as the process of torch, in this folder.')
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    print(processor.describe())
    from lecture4.ops import onednn

    with tempfile.TemporaryDirectory() as folder:
        ask = peer(options, folder)
        state = dict(np.load(pathlib.Path(folder) / 'weights.npz'))
        expected = dict(np.load(pathlib.Path(folder) / 'detected.npz'))
    forms, kinds = {}, ('forward', 'training')[: 1 + options.training]
    for form in ('oneDNN', 'plain') if onednn.installed() else ('plain',):
        with mock.patch.object(onednn, 'installed', lambda form=form: form == 'oneDNN'):
            runs, by_stage, detections = ours(state, expected['image'])
            for kind in kinds:
                runs[kind]()  # compiles with or without oneDNN
        print(f'{form}: {difference(detections, expected)}', flush=True)
        forms[form] = runs, by_stage
    for kind in kinds:
        times = {form: [] for form in (*forms, 'torch')}
        for repeat in range(options.repeats + 1):
            turn = {form: timed(runs[kind]) for form, (runs, _) in forms.items()}
            turn['torch'] = ask(kind)
            for form, pair in turn.items() if repeat else ():  # the first warms up
                times[form].append(pair)
        medians = {
            form: [statistics.median(column) for column in zip(*pairs, strict=True)]
            for form, pairs in times.items()
        }
        for form, (seconds, cpu) in medians.items():
            ratios = [medians['torch'][0] / seconds, medians['torch'][1] / cpu]
            print(
                f'{kind:8s} {form:7s} {seconds:7.2f} s, {cpu:7.2f} CPU-s, '
                f'torch / ours {ratios[0]:.2f}, CPU {ratios[1]:.2f}', flush=True,
            )  # fmt: skip
    for form, (runs, by_stage) in forms.items():
        whole = statistics.median(timed(runs['forward'])[1] for _ in range(3))
        for name, run in by_stage.items():
            run()
            cpu = statistics.median(timed(run)[1] for _ in range(3))
            print(f'{form:7s} {name:28s} {1000 * cpu:7.0f} CPU-ms, {100 * cpu / whole:5.1f} %')


if __name__ == '__main__':
    main()

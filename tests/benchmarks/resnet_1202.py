"""One training step of ResNet-1202 (He et al. 2016, section 4.2): time to trace, to compile and to run it.

    python tests/benchmarks/resnet_1202.py --batch_size 8

The blocks of a stage are one loop (scan_blocks), so that six blocks are compiled in place of 600. Variables are
initialized one operation after another: as one program, their 3000 random draws compile for longer than the step.

Two CPU cores, each shared by five processes: initialize 112 s, trace 136 s, compile 628 s, a step of 8 images 11 to 15
s, temporary memory 1.26 GiB; 19,421,274 parameters.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4.vision.models import registry


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--batch_size', type=int, default=8, help='Images per step; the paper has 128.'
    )
    options = parser.parse_args()
    network = registry.create('cifar_resnet_1202', 10)
    optimizer = optax.sgd(0.01, momentum=0.9)
    seconds, start = {}, time.perf_counter()

    def lap(name):
        nonlocal start
        seconds[name], start = time.perf_counter() - start, time.perf_counter()
        print(f'{name:10s} {seconds[name]:8.1f} s', flush=True)

    variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params, stats = variables['params'], variables['batch_stats']
    opt_state = optimizer.init(params)
    lap('initialize')
    x = jax.random.normal(jax.random.key(1), (options.batch_size, 32, 32, 3))
    y = jnp.arange(options.batch_size) % 10

    def step(params, stats, opt_state):
        def loss(params):
            inputs = {'params': params, 'batch_stats': stats}
            (logits, _), new = network.apply(inputs, x, train=True, mutable=['batch_stats'])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), new['batch_stats']

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, value

    lowered = jax.jit(step, donate_argnums=(0, 1, 2)).lower(params, stats, opt_state)
    lap('trace')
    compiled = lowered.compile()
    lap('compile')
    for i in range(3):
        params, stats, opt_state, value = compiled(params, stats, opt_state)
        jax.block_until_ready(value)
        lap(f'step {i + 1}')
        print(f'           loss {float(value):.3f}')
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    peak = compiled.memory_analysis()
    print(f'{count:,} parameters; temporary memory {peak.temp_size_in_bytes / 2**30:.2f} GiB')


if __name__ == '__main__':
    main()

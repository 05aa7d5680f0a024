"""VGG A to E: 3 x 3 convolutions, doubled where a map is halved. Simonyan & Zisserman, ICLR 2015."""

from typing import Any, Literal

from flax import linen as nn

from lecture4.ops import norm, pool
from lecture4.vision.layer_specs import VGG_BLOCKS
from lecture4.vision.layers import (
    FullyConnected,
    Rule,
    adaptive_mean_pool,
    check,
    conv,
    he,
    normal,
    relu,
    unless_deconvnet,
)

MEAN = (123.68, 116.779, 103.939)  # of the pixels 0..255, red green blue: all that is subtracted


class VGG(nn.Module):
    """One configuration of table 1.

    letter      'a' (11 layers), 'a_lrn', 'b' (13), 'c' (16, some of 1 x 1), 'd' (16), 'e' (19).
    batch_norm  behind every convolution: not in the paper, but in vgg16_bn and its like. Under pmap
                axis_name names the devices over which its statistics are taken.
    initial     'paper': N(0, 0.01), the variance, as A started; 'he', as torchvision starts.
    dense       larger pictures give a map of logits [n, h, w, classes], whose mean is the paper's
                dense evaluation; else maps of another size than 7 x 7 are pooled to that.
    rule        ReLU's way back, see layers.relu.
    Shapes      x [n, 224, 224, 3]; logits [n, n_classes]; activations conv1_1, conv1_2, ... behind
                their ReLU, pool1 .. pool5, fc6, fc7.
    Errors      as layers.check; KeyError for another letter.
    """

    letter: Literal['a', 'a_lrn', 'b', 'c', 'd', 'e'] = 'd'
    n_classes: int = 1000
    batch_norm: bool = False
    initial: Literal['paper', 'he'] = 'he'
    dropout: float = 0.5
    dense: bool = False
    rule: Rule = 'gradient'
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        """Logits and activations."""
        check(x, 224 if self.dense else 32, 'VGG')
        activations = {}
        initial = normal(0.1) if self.initial == 'paper' else he
        blocks = VGG_BLOCKS[self.letter.removesuffix('_lrn')]
        for i, (n_wide, n_narrow) in enumerate(blocks, 1):
            units = 64 * 2 ** min(i - 1, 3)
            for j, side in enumerate([3] * n_wide + [1] * n_narrow, 1):
                name = f'conv{i}_{j}'
                layer = conv(
                    units, side, 1, side // 2, kernel_init=initial, dtype=self.dtype, name=name
                )
                x = layer(x)
                if self.batch_norm:
                    x = nn.BatchNorm(
                        not train, axis_name=self.axis_name, momentum=0.9, dtype=self.dtype,
                        name=f'bn{i}_{j}',
                    )(x)  # fmt: skip
                x = activations[name] = relu(x, self.rule)
                if self.letter == 'a_lrn' and name == 'conv1_1':
                    x = activations['norm1_1'] = unless_deconvnet(norm.local_response, x, self.rule)
            x = activations[f'pool{i}'] = pool.max_pool(x, 2)
        if not self.dense and x.shape[1:3] != (7, 7):
            x = adaptive_mean_pool(x, 7)
        deviation = 0.1 if self.initial == 'paper' else 0.01
        head = FullyConnected(
            self.n_classes, 7, deviation, dropout=self.dropout, dense=self.dense, rule=self.rule,
            dtype=self.dtype, name='head',
        )  # fmt: skip
        logits, hidden = head(x, train=train)
        return logits, {**activations, **hidden}

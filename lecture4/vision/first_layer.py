"""What a first layer keeps of its image: aliasing, reconstruction from its outputs, and the state of its filters.

A layer of stride s samples the responses of its filters at every s-th pixel. Two gratings whose frequencies differ by
1 / s have the same samples: what is above 1 / (2 s) cycles per pixel is folded to a lower frequency. Whether the image
can be recovered is another question: it depends on how many outputs there are for each pixel.

References:
  Zeiler & Fergus 2014, section 4.1, on AlexNet's first layer: a mix of very high and very low frequencies, and aliasing
  caused by the stride of 4.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lecture4.ops import conv, patches
from lecture4.ops.metrics import psnr
from lecture4.vision import layers

FFT_SIZE = 64
BLOCK = 4  # pixels that are reconstructed together; a multiple of the strides
HIGH, LOW = 1 / 4, 1 / 16  # cycles per pixel
IMAGES_AT_ONCE = 20  # of which all outputs that a block depends on are in memory
NOISE = 0.01  # std of the noise of outputs, relative to the root of their mean variance
HIDDEN_FEATURES = 32


class FirstLayer(NamedTuple):
    """Sizes of a first layer.

    Attributes:
      kernel_size: Height and width of the filters.
      stride: Distance between outputs in pixels, 1, 2 or 4.
    """

    kernel_size: int
    stride: int

    @property
    def name(self) -> str:
        """'11_4': kernel size and stride."""
        return f'{self.kernel_size}_{self.stride}'

    def responses(
        self,
        kernel: Float[Array | np.ndarray, 'h w c o'],
        x: Float[Array | np.ndarray, 'n h2 w2 c'],
    ) -> Float[Array, 'n rows cols o']:
        """Outputs of the filters before the bias and the ReLU, without padding."""
        return conv.cross_correlate(jnp.asarray(x), jnp.asarray(kernel), self.stride)


class Network(nn.Module):
    """The layer, ReLU, max pooling as in AlexNet, a 3 x 3 convolution, ReLU, the mean over positions, a dense layer.

    Attributes:
      layer: Sizes of the first layer.
      num_filters: Number of its filters.
      n_classes: Number of classes.
    """

    layer: FirstLayer
    num_filters: int
    n_classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array | np.ndarray, 'n h w c'], *, train: bool = False
    ) -> Float[Array, 'n n_classes']:
        """Logits."""
        del train
        size, stride = self.layer.kernel_size, self.layer.stride
        init = nn.initializers.normal(0.01)  # of both papers
        conv1 = layers.conv(self.num_filters, size, stride, kernel_init=init, name='conv1')
        maps = nn.relu(conv1(jnp.asarray(x)))
        maps = layers.max_pool(maps, 3, 2)
        maps = nn.relu(layers.conv(HIDDEN_FEATURES, 3, padding=1, name='conv2')(maps))
        return nn.Dense(self.n_classes, name='fc')(maps.mean((1, 2)))


def grating(
    size: int, frequency: float, angle: float = 0.0, phase: float = 0.0
) -> Float[np.ndarray, '{size} {size}']:
    """cos(2 pi f (x cos angle + y sin angle) + phase).

    Args:
      size: Height and width in pixels.
      frequency: Cycles per pixel.
      angle: Direction of the wave in radians, 0 along rows.
      phase: Phase in radians.
    """
    y, x = np.mgrid[:size, :size]
    along = x * np.cos(angle) + y * np.sin(angle)
    return np.cos(2 * np.pi * frequency * along + phase).astype(np.float32)


def output_frequencies(
    layer: FirstLayer,
    kernel: Float[Array | np.ndarray, 'h w c o'],
    frequencies: Sequence[float] | Float[np.ndarray, ' m'],
    size: int = 192,
) -> Float[np.ndarray, ' m']:
    """Frequency of the layer's outputs for gratings along the rows, in cycles per pixel of the image.

    Args:
      layer: Sizes of the layer.
      kernel: Its filters; of each grating the filter with the largest response is taken.
      frequencies: Frequencies of the gratings in cycles per pixel, above 0.
      size: Size of the gratings in pixels; the resolution is 1 / size.

    Returns:
      The frequency of the largest coefficient of the outputs' spectrum.
    """
    channels, peaks = kernel.shape[2], []
    run = jax.jit(layer.responses)
    for frequency in frequencies:
        image = np.repeat(grating(size, float(frequency))[None, ..., None], channels, axis=3)
        outputs = np.asarray(run(kernel, image))[0, 0]  # all rows are equal
        outputs = outputs - outputs.mean(0)
        row = outputs[:, (outputs**2).sum(0).argmax()]
        spectrum = abs(np.fft.rfft(row * np.hanning(len(row)), 8 * len(row)))
        peaks.append(spectrum.argmax() / (8 * len(row)) / layer.stride)
    return np.array(peaks)


def power_spectra(
    kernel: Float[Array | np.ndarray, 'h w c o'],
) -> tuple[Float[np.ndarray, 'f f o'], Float[np.ndarray, 'f f'], Float[np.ndarray, 'f f']]:
    """Squared amplitudes of the filters' responses to gratings of all frequencies, summed over channels.

    Returns:
      (power, vertical frequencies, horizontal frequencies), frequencies in cycles per pixel.
    """
    power = abs(np.fft.fft2(np.asarray(kernel, float), (FFT_SIZE, FFT_SIZE), axes=(0, 1))) ** 2
    f = np.fft.fftfreq(FFT_SIZE)
    return power.sum(2), *np.meshgrid(f, f, indexing='ij')


def aliased_fraction(layer: FirstLayer, kernel: Float[Array | np.ndarray, 'h w c o']) -> float:
    """Fraction of the power of an output that is folded, for natural images, mean over the filters.

    The power of natural images falls as 1 / f^2; the constant component is left out.

    Args:
      layer: Sizes of the layer.
      kernel: Its filters.
    """
    power, fy, fx = power_spectra(kernel)
    power = power / np.where((fy == 0) & (fx == 0), np.inf, fy**2 + fx**2)[..., None]
    is_folded = np.maximum(abs(fy), abs(fx)) > 1 / (2 * layer.stride)
    return float(np.mean(power[is_folded].sum(0) / (power.sum((0, 1)) + 1e-30)))


def band_fractions(kernel: Float[Array | np.ndarray, 'h w c o']) -> tuple[float, float]:
    """Fractions of the filters with most of their power below 1/16 and above 1/4 cycles per pixel."""
    power, fy, fx = power_spectra(kernel)
    radius, total = np.hypot(fy, fx), power.sum((0, 1)) + 1e-30
    low, high = (power[mask].sum(0) / total for mask in (radius < LOW, radius > HIGH))
    return float((low > 0.5).mean()), float((high > 0.5).mean())


def reconstruct(
    layer: FirstLayer,
    outputs: Callable[[Float[np.ndarray, 'n h w c']], Float[Array, 'n rows cols o']],
    train: Float[np.ndarray, 'n h w c'],
    test: Float[np.ndarray, 'm h w c'],
    num_blocks: int = 6000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, 'm h2 w2 c'], Float[np.ndarray, 'm h2 w2 c']]:
    """Images from the layer's outputs, by linear regression on all those that see any pixel of a block of 4 x 4.

    The outputs of the test images have noise, its std `NOISE` times the root of the outputs' mean variance, and the
    regression is the best linear one for it: without noise, enough outputs of any filters determine the image.

    Args:
      layer: Sizes of the layer.
      outputs: From images to the layer's outputs, with or without its ReLU.
      train: Images that the regression is fitted to.
      test: Images to reconstruct.
      num_blocks: Largest number of blocks to fit to, chosen at random.
      seed: Seed of the choice and of the noise.

    Returns:
      (reconstructions, the same pixels of the test images): the blocks that have all their outputs.
    """
    from sklearn.linear_model import Ridge

    window = -(-(layer.kernel_size + BLOCK - 1) // layer.stride)
    offset = ((window - 1) * layer.stride + layer.kernel_size - BLOCK) // 2

    rng = np.random.default_rng(seed)

    def pairs(maps, images):
        """(outputs that see a block, its pixels) of all blocks, and the images' pixels in blocks, by parts."""
        for start in range(0, len(images), IMAGES_AT_ONCE):
            part = slice(start, start + IMAGES_AT_ONCE)
            features = np.asarray(patches.extract(maps[part], window, BLOCK // layer.stride))
            n, rows, cols = features.shape[:3]
            inside = images[part, offset : offset + BLOCK * rows, offset : offset + BLOCK * cols]
            blocks = np.asarray(patches.extract(inside, BLOCK, BLOCK))
            yield features.reshape(n * rows * cols, -1), blocks.reshape(n * rows * cols, -1), inside

    maps = outputs(train)
    rows, cols = ((n - window) // (BLOCK // layer.stride) + 1 for n in maps.shape[1:3])
    chosen = rng.permutation(len(train) * rows * cols)[:num_blocks]
    first, features, targets = 0, [], []
    for x, y, _ in pairs(maps, train):
        own = chosen[(chosen >= first) & (chosen < first + len(x))] - first
        features.append(x[own].astype(np.float64))
        targets.append(y[own])
        first += len(x)
    features, targets = np.concatenate(features), np.concatenate(targets)
    noise = np.maximum(NOISE * np.sqrt(features.var(0).mean()), 1e-6)
    model = Ridge(len(chosen) * noise**2, solver='cholesky', copy_X=False)
    model.fit(features, targets)
    maps = np.asarray(outputs(test))
    maps = maps + noise.astype(maps.dtype) * rng.standard_normal(maps.shape, maps.dtype)
    images, insides = [], []
    for x, _, inside in pairs(maps, test):
        n, height, width, channels = inside.shape
        blocks = model.predict(x)
        blocks = blocks.reshape(n, height // BLOCK, width // BLOCK, BLOCK, BLOCK, channels)
        images.append(blocks.transpose(0, 1, 3, 2, 4, 5).reshape(inside.shape).astype(np.float32))
        insides.append(inside)
    return np.concatenate(images), np.concatenate(insides)


def error_by_frequency(
    reconstructed: Float[np.ndarray, 'n h w c'],
    images: Float[np.ndarray, 'n h w c'],
    num_bands: int = 12,
) -> tuple[Float[np.ndarray, ' {num_bands}'], Float[np.ndarray, ' {num_bands}']]:
    """Power of the error over that of the images, by spatial frequency.

    Args:
      reconstructed: Reconstructed images.
      images: The original images.
      num_bands: Number of equal bands between 0 and 1/2 cycles per pixel, in all directions.

    Returns:
      (centers of the bands in cycles per pixel, ratios).
    """
    height, width = images.shape[1:3]
    window = (np.hanning(height)[:, None] * np.hanning(width)[None])[None, ..., None]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    edges = np.linspace(0, 0.5, num_bands + 1)

    def band_power(x):
        centered = (x - x.mean((1, 2), keepdims=True)) * window
        power = (abs(np.fft.fft2(centered, axes=(1, 2))) ** 2).sum((0, 3))
        return np.histogram(radius, edges, weights=power)[0]

    return (edges[1:] + edges[:-1]) / 2, band_power(reconstructed - images) / band_power(images)


def measure(
    layer: FirstLayer,
    conv1: Mapping[str, Float[Array | np.ndarray, '...']],
    train: Float[np.ndarray, 'n h w c'],
    test: Float[np.ndarray, 'm h w c'],
    *,
    peak: float,
    num_reconstructed: int = 100,
) -> tuple[dict[str, float], Float[np.ndarray, '_ h2 w2 c'], Float[np.ndarray, '_ h2 w2 c']]:
    """What a layer keeps of images, and the state of its filters.

    Args:
      layer: Sizes of the layer.
      conv1: Its `kernel` and `bias`.
      train: Images that reconstructions are fitted to.
      test: Images to measure on.
      peak: Range of the pixels, for the PSNR.
      num_reconstructed: Largest number of test images to reconstruct.

    Returns:
      ({`outputs_per_input`: number of outputs for each value of an image; `linear_psnr` and `relu_psnr`: PSNR of images
      reconstructed from outputs before and after the ReLU; `aliased`: see `aliased_fraction`; `dead`: fraction of
      the filters whose ReLU is 0 everywhere in the test images; `low_frequency`, `high_frequency`: see
      `band_fractions`}, test images reconstructed after the ReLU, the same pixels of the images).
    """
    kernel, bias = (np.asarray(conv1[name]) for name in ('kernel', 'bias'))

    def linear(x):
        return layer.responses(kernel, x) + bias[None, None, None]

    record = {'outputs_per_input': kernel.shape[3] / (layer.stride**2 * kernel.shape[2])}
    some = result = inside = test[:num_reconstructed]
    for name, outputs in (('linear', linear), ('relu', lambda x: jax.nn.relu(linear(x)))):
        result, inside = reconstruct(layer, jax.jit(outputs), train, some)
        record[f'{name}_psnr'] = float(psnr(result, inside, peak))
    record['aliased'] = aliased_fraction(layer, kernel)
    record['dead'] = float(np.mean(np.asarray(linear(test)).max((0, 1, 2)) <= 0))
    record['low_frequency'], record['high_frequency'] = band_fractions(kernel)
    return record, result, inside

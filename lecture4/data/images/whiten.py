"""Whitening of whole pictures in the Fourier domain, before patches are cut."""

import numpy as np


def whiten(images, cutoff: float = 0.39) -> list[np.ndarray]:
    """Each picture filtered by |f| exp(-(|f| / cutoff)^4), then scaled to variance 1.

    Natural pictures have amplitudes that fall about as 1 / |f|: the first factor levels them, the
    second takes out the corners of the spectrum, where the pixel grid and noise are. The mean is
    removed, and with it the zero frequency. A picture counts as periodic: a band of about
    1 / cutoff pixels along its border is not to be trusted.

    Shapes  images [n, h, w, 1] or a sequence of [h, w, 1], float. Returns a list of float32
            [h, w, 1]; a constant picture becomes zero.
    Domain  cutoff > 0, in cycles per pixel (Nyquist's is 0.5).
    Errors  ValueError for a cutoff that is not positive or pictures of another shape.
    Source  Olshausen & Field 1997, section 4, with cutoff 200 cycles per picture of 512 pixels.
    """
    if not cutoff > 0:
        raise ValueError(f'cutoff {cutoff} has to be positive, in cycles per pixel')
    whitened = []
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 1:
            raise ValueError(f'picture {i} has shape {image.shape}, wanted [h, w, 1]; use grey')
        h, w = image.shape[:2]
        frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None, :])
        response = frequency * np.exp(-((frequency / cutoff) ** 4))
        filtered = np.fft.irfft2(np.fft.rfft2(image[:, :, 0]) * response, (h, w))
        spread = filtered.std()
        # What rounding leaves of a constant picture is not to be blown up.
        flat = spread <= 1e-6 * max(float(np.abs(image).max()), 1e-30)
        filtered = np.zeros_like(filtered) if flat else filtered / spread
        whitened.append(filtered.astype(np.float32)[:, :, None])
    return whitened


def unit_variance(images) -> list[np.ndarray]:
    """Each picture less its mean, over its standard deviation: for sets that come whitened."""
    centred = [image - image.mean() for image in images]
    return [image / (image.std() or 1) for image in centred]

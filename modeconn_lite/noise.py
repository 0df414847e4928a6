"""Chapter 3. Noise stability: how much of the noise in a layer arrives at the outputs."""

import torch
from torch import Tensor, nn

from .neurons import hidden_layers
from .repair import watch
from .weights import Weights, check_weights


@torch.no_grad()
def noise_sensitivity(
    network: nn.Module, w: Weights, x: Tensor, *, size: float = 0.5, seed: int = 0
) -> dict[str, float]:
    """How much the outputs change when noise is added to a hidden layer, for each layer alone.

    The noise is Gaussian, drawn anew for each input, and has `size` times the length of that
    layer's pre-activation z. The sensitivity is the mean over inputs of

        |f(z + noise) − f(z)|² / |f(z)|²,

    as in Arora et al. (2018), whose noise has another length. Noise that passed undamped would
    give size². Cost: one forward pass a layer, and one more.

    Raises
    ------
    ValueError
        If the weights do not fit, the network is not understood, or size is not positive.
    """
    check_weights(w, like=network)
    if not size > 0:
        raise ValueError(f"noise needs a positive size, not {size}")
    generator = torch.Generator().manual_seed(seed)

    def disturb(name: str, given: Tensor, out: Tensor) -> Tensor:
        noise = torch.randn(out.shape, generator=generator, dtype=out.dtype).to(out.device)
        over = tuple(range(1, out.dim()))
        lengths = [torch.linalg.vector_norm(z, dim=over, keepdim=True) for z in (out, noise)]
        return out + size * lengths[0] / lengths[1] * noise

    calm = watch(network, w, x, set(), disturb)
    found = {}
    for layer in hidden_layers(network):
        moved = watch(network, w, x, {layer.name}, disturb)
        change = (moved - calm).square().flatten(1).sum(1) / calm.square().flatten(1).sum(1)
        found[layer.name] = float(change.mean())
    return found

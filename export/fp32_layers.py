"""Choose layers that stay in fp32 because the tower would otherwise lose too much in 8 bits.

In: a tower, and the similarity of its 8-bit version on held-back calibration data. Out: the smallest number of layer
sets, beginning with those that help most, that must stay in fp32 to make the 8-bit version similar enough.
"""

from collections.abc import Callable, Collection

import onnx

from .layer_sets import layer_sets

MIN_COSINE = 0.985  # to fp32, 1st percentile of held-back calibration data

Cosine = Callable[[Collection[str]], float]  # nodes kept in fp32 -> cosine to fp32, 1st percentile


def layers_to_keep(model: onnx.ModelProto, cosine: Cosine) -> dict[str, set[str]]:
    """By name, the sets of nodes to keep in fp32 in a tower that does not reach `MIN_COSINE` in 8 bits.

    Each set is measured as the only one in fp32. The best 1, 2, 3, 5, 8, ... sets are then kept together, at most all
    of them, until the tower passes.
    """
    sets = layer_sets(model)
    gain = {name: cosine(nodes) for name, nodes in sets.items()}
    order = sorted(sets, key=lambda name: -gain[name])
    count = 1
    while count < len(order) and cosine({node for name in order[:count] for node in sets[name]}) < MIN_COSINE:
        count += (count + 1) // 2
    return {name: sets[name] for name in order[:count]}

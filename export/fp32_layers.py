"""Choose layers that stay in fp32 when a tower loses too much in 8 bits.

In: a tower, and the similarity of its 8-bit version to fp32 on held-back calibration data. Out: the fewest sets of
layers that must stay in fp32 for enough similarity, the most helpful ones first.
"""

from collections.abc import Callable, Collection

import onnx

from .layer_sets import layer_sets

MIN_COSINE = 0.985  # to fp32, 1st percentile of held-back calibration data

Cosine = Callable[[Collection[str]], float]  # nodes kept in fp32 -> cosine to fp32, 1st percentile


def layers_to_keep(model: onnx.ModelProto, cosine: Cosine) -> dict[str, set[str]]:
    """The sets of nodes, by name, that stay in fp32 in a tower that does not reach `MIN_COSINE` in 8 bits.

    Each set is first measured as the only one in fp32. Then the best 1, 2, 3, 5, 8, ... sets stay in fp32 together,
    until the tower reaches `MIN_COSINE`.
    """
    sets = layer_sets(model)
    gain = {name: cosine(nodes) for name, nodes in sets.items()}
    order = sorted(sets, key=lambda name: -gain[name])
    count = 1
    while count < len(order) and cosine({node for name in order[:count] for node in sets[name]}) < MIN_COSINE:
        count += (count + 1) // 2
    return {name: sets[name] for name in order[:count]}

"""Tiny random replicas of the layouts that others publish: their files, names, types and settings.

In: a folder. Out: the bundle in it, and a `Replica`, which embeds as the model's own pipeline does.
"""

from collections.abc import Callable
from pathlib import Path

from tests.support.replicas import hub_community, immich
from tests.support.replicas.building import Replica
from tests.support.replicas.jina import jina

__all__ = ["REPLICAS", "Replica"]

REPLICAS: dict[str, Callable[[Path], Replica]] = {
    "Xenova/clip": hub_community.clip,
    "Xenova/siglip": hub_community.siglip,
    "onnx-community/siglip2": hub_community.siglip2,
    "Xenova/mobileclip": hub_community.mobileclip,
    "plhery/mobileclip2": hub_community.mobileclip2,
    "immich-app/clip": immich.clip,
    "immich-app/siglip2": immich.siglip2,
    "immich-app/xlm-roberta": immich.xlm_roberta,
    "jinaai/jina-clip": jina,
}

"""Which rows stand or fall together: those of one image, and of images that rephrasings of one question link."""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import ReadOnly

Labels = NDArray[np.intp]
Floats = NDArray[np.float64]


class Pictured(TypedDict):
    """What tells a row's cluster; rows of sets that link no questions have no `linked_id`, or ""."""

    source: str
    image_id: str
    linked_id: NotRequired[ReadOnly[str]]


def clusters(rows: Sequence[Pictured]) -> Labels:
    """The number of each row's cluster [n], from 0: rows of one source that share an image or a linked question.

    Both are chained: two images that one `linked_id` names are one cluster (in VQA-RAD, one pair of images).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[tuple[str, ...], int] = {}
    images = [nodes.setdefault((row["source"], "image", row["image_id"]), len(nodes)) for row in rows]
    edges = [
        (image, nodes.setdefault((row["source"], "linked", linked), len(nodes)))
        for row, image in zip(rows, images, strict=True)
        if (linked := row.get("linked_id"))
    ]
    one, other = np.array(edges, dtype=np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (one, other)), shape=(len(nodes), len(nodes)))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels[np.array(images, dtype=np.intp)], dtype=np.intp)


def totals(scores: ArrayLike, clusters: NDArray[Any]) -> tuple[Floats, Floats]:
    """The sum of scores and the number of rows of each cluster, both [clusters].

    In an order of their own, the same however rows are ordered and clusters numbered: what is drawn from them by a
    seed is then the same too.
    """
    _, labels = np.unique(clusters, return_inverse=True)
    sums = np.bincount(labels, np.asarray(scores, float))
    sizes: Floats = np.bincount(labels).astype(float)
    order = np.lexsort((sums, sizes))
    return np.asarray(sums[order], float), sizes[order]

"""What most documents of a source share, such as a long instruction: it makes no two alike."""

from collections.abc import Iterator

import numpy as np

from stages.preprocess.shards import Shards, compared_of, open_shard
from stages.preprocess.shingles import shingles

SAMPLE = 400  # documents of a source, spread evenly over all
FEWEST = 20  # documents; of fewer, nothing is said to be common
MOST = 0.5  # of the documents hold what is common


def find_common(shards: Shards) -> dict[str, np.ndarray]:
    """For each source that has any, the runs of five words that most of its documents hold."""
    found = {}
    for source in sorted(set(shards.sources)):
        texts = ["\n".join(said) for said in _sample(shards, source)]
        sets = [np.union1d(shingles(text), shingles(text, signs=True)) for text in texts]
        distinct = list({each.tobytes(): each for each in sets}.values())
        if len(distinct) < FEWEST:
            continue
        runs, counts = np.unique(np.concatenate(distinct), return_counts=True)
        common = runs[counts > MOST * len(distinct)]
        if len(common):
            found[source] = common
    return found


def _sample(shards: Shards, source: str) -> Iterator[list[str]]:
    """What evenly spread documents of a source say."""
    own = [n for n, name in enumerate(shards.sources) if name == source]
    sizes = [shards.starts[n + 1] - shards.starts[n] for n in own]
    step = max(1, sum(sizes) // SAMPLE)
    begun = 0
    for number, size in zip(own, sizes, strict=True):
        for row in range(-begun % step, size, step):
            yield compared_of(open_shard(shards.paths[number]), row)
        begun += size

"""How evenly a router uses its experts, and what a cache of experts would hit."""

import torch

CACHE_SIZES = (8, 16, 24, 32, 48)


def routing_stats(layer, sequences, num_experts):
    """sequences: expert ids [tokens, experts per token] of each sequence. -> a row of figures

    The cache is the least recently used, of so many experts of one layer, empty at the start of each
    sequence; a token's experts are asked for in the router's order.
    """
    counts = torch.bincount(torch.cat(sequences).flatten().long(), minlength=num_experts).float()
    shares = counts / counts.sum()
    busiest = shares.sort(descending=True)[0]
    used = shares[shares > 0]
    repeated = total = 0
    hits = dict.fromkeys(CACHE_SIZES, 0)
    for sequence in sequences:
        previous = set()
        caches = {size: [] for size in CACHE_SIZES}
        for experts in sequence.tolist():
            repeated += len(previous & set(experts))
            total += len(experts)
            previous = set(experts)
            for size, cache in caches.items():
                hits[size] += ask_cache(cache, size, experts)
    return dict(
        layer=layer,
        entropy_bits=round(-(used * used.log2()).sum().item(), 3),
        top8_share=round(busiest[:8].sum().item(), 3),
        top16_share=round(busiest[:16].sum().item(), 3),
        unused=int((counts == 0).sum()),
        same_as_previous_token=round(repeated / total, 3),
        lru_hit={str(size): round(count / total, 3) for size, count in hits.items()},
    )


def ask_cache(cache, size, experts):
    """Asks for experts one after the other; the list is ordered by last use. -> hits"""
    hits = 0
    for expert in experts:
        if expert in cache:
            hits += 1
            cache.remove(expert)
        cache.append(expert)
        if len(cache) > size:
            cache.pop(0)
    return hits

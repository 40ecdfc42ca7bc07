"""Statistics of paired measurements: is B faster than A, or is it the weather?

Runs come in blocks A B B A, so that a machine that warms up or slows down weighs on both alike. Each
block gives two pairs B/A, and one pair A/A from its outer runs: the noise of this very hour.
"""

import random
import statistics

BLOCK = "ABBA"
RESAMPLES = 4000
CONFIDENCE = 0.95
GAIN_MIN = 0.01  # smaller gains are not worth a line of code


def median_interval(values, seed=1):
    """-> (median, low, high): percentile bootstrap of the median, repeatable."""
    if not values:
        raise ValueError("no values")
    middle = statistics.median(values)
    draw = random.Random(seed)
    medians = sorted(
        statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    tail = (1 - CONFIDENCE) / 2
    low = medians[int(tail * (RESAMPLES - 1))]
    high = medians[int((1 - tail) * (RESAMPLES - 1))]
    return middle, low, high


def ratios_of(blocks):
    """blocks: [[rate of A, of B, of B, of A]] -> (ratios B/A, ratios A/A)."""
    ratios, same = [], []
    for first, second, third, fourth in blocks:
        ratios += [second / first, third / fourth]
        same.append(fourth / first)
    return ratios, same


def noise_of(same):
    """How far from 1 the ratio of two equal programs strays: the worst end of its interval."""
    _, low, high = median_interval(same)
    return max(abs(low - 1), abs(high - 1))


def verdict(ratio, low, high, noise):
    """KEEP and DISCARD need an interval without 1 and a step above 1 % and twice the noise."""
    step = max(GAIN_MIN, 2 * noise)
    if low > 1 and ratio - 1 > step:
        return "KEEP"
    if high < 1 and 1 - ratio > step:
        return "DISCARD"
    return "NULL"

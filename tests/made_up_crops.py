"""Made-up series and pairs of two sensors, small and without an archive behind them."""

import torch
from torch import Generator

from rsbook import series


def make_series(seed=0, classes=3, train=8, val=4, dates=12, region="somewhere"):
    """Series whose classes differ by when their infrared is high."""
    generator = Generator().manual_seed(seed)
    counts = train + val
    labels = torch.arange(classes).repeat_interleave(counts)
    days = torch.arange(dates) * 30 + 1
    wave = 2000 + 1500 * torch.sin(torch.arange(dates) / dates * 6.28 + 2.0 * labels[:, None])
    values = torch.randint(300, 900, (len(labels), dates, 12), generator=generator).float()
    values[..., 6:9] += wave[..., None]
    in_train = (torch.arange(len(labels)) % counts) < train
    return series.Series(
        name="made up",
        region=region,
        values=values.to(torch.uint16),
        labels=labels,
        fields=torch.arange(len(labels)),
        days=days,
        classes=("wheat", "corn", "meadow", "rye")[:classes],
        splits={"train": in_train.nonzero()[:, 0], "val": (~in_train).nonzero()[:, 0]},
        checksum="c",
    )


def make_pairs(seed=0, count=3000, noise=60.0):
    """Pairs of which both sensors see the same two hidden quantities."""
    generator = Generator().manual_seed(seed)
    hidden = torch.rand(count, 2, generator=generator)
    seen = []
    for width in (12, 36):
        mix = 1500 * torch.rand(2, width, generator=Generator().manual_seed(width))
        seen.append(500 + hidden @ mix + noise * torch.rand(count, width, generator=generator))
    day = torch.arange(count) % 365 + 1
    return series.Pairs("made up", "somewhere", *(v.to(torch.uint16) for v in seen), day, "c")

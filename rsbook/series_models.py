"""Networks for single pixels and for their series (Part III): the encoder that is pre-trained, and the base models.

Patnala et al. 2024; the base models follow those of BreizhCrops (Rußwurm et al., arXiv 1905.11893), written anew. The
weights of all of them depend on the generator alone; global random state is left as it was.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from rsbook.models import drawn_from

MAX_LENGTH = 150  # dates that the Transformer has positions for
RESIDUAL_EVERY = 3  # blocks of InceptionTime

Space = Mapping[str, "Sequence[int] | tuple[float, float]"]
LEARNING_RATE = (1e-5, 1e-3)
SPACES: dict[str, Space] = {  # what configurations are drawn from: a list of choices, or a range as a tuple
    "lstm": {
        "hidden": [32, 64, 128, 256],
        "layers": [2, 3, 4, 5, 6],
        "dropout": (0.0, 0.6),  # in the authors' code alone
        "learning_rate": LEARNING_RATE,
    },
    "inception_time": {
        "layers": [2, 4, 8],
        "hidden": [128, 256, 512, 1024],
        "kernel": [40, 80, 120, 136],
        "learning_rate": LEARNING_RATE,
    },
    "transformer": {
        "d": [32, 64, 128],
        "heads": [2, 4, 8],
        "layers": [2, 3, 4, 5, 6],
        "learning_rate": LEARNING_RATE,
    },
}
BASE_MODELS = tuple(SPACES)


def res_mlp(
    inputs: int, generator: Generator, width: int = 256, blocks: int = 4, dropout: float = 0.0
) -> nn.Sequential:
    """The encoder that is pre-trained: values (N,inputs) float32 → embeddings (N,width).

    A linear layer, residual blocks x + [BN, linear, ReLU, dropout, linear, dropout], and BN, ReLU, linear at the end
    (section on pre-training; the authors' code). Raises ValueError for sizes below 1 and a dropout outside 0 … 1.
    """
    _check_sizes(inputs=inputs, width=width, blocks=blocks)
    _check_dropout(dropout)
    with drawn_from(generator):
        return nn.Sequential(
            nn.Linear(inputs, width),
            *(_Residual(width, dropout) for _ in range(blocks)),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
        )


def projector(generator: Generator, width: int = 256) -> nn.Sequential:
    """Embeddings (N,width) → projections (N,width) that the loss sees; not used after pre-training.

    Linear, ReLU, BN, linear. Raises ValueError for a width below 1.
    """
    _check_sizes(width=width)
    with drawn_from(generator):
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Linear(width, width))


class BiLstm(nn.Module):
    """A bidirectional LSTM: values (B,T,bands) float32 → logits (B,classes), from the last cell states of all layers.

    The input is normalised date by date, the cell states together (LayerNorm); the gates have no biases; dropout
    between the layers. Raises ValueError for sizes below 1 and a dropout outside 0 … 1.
    """

    def __init__(self, bands: int, classes: int, hidden: int, layers: int, dropout: float = 0.0):
        super().__init__()
        _check_sizes(bands=bands, classes=classes, hidden=hidden, layers=layers)
        _check_dropout(dropout)
        self.norm = nn.LayerNorm(bands)
        between = dropout if layers > 1 else 0.0  # torch warns of dropout that has no place
        self.lstm = nn.LSTM(bands, hidden, layers, bias=False, batch_first=True, dropout=between, bidirectional=True)
        self.state_norm = nn.LayerNorm(2 * layers * hidden)
        self.head = nn.Linear(2 * layers * hidden, classes)

    def forward(self, values: Tensor) -> Tensor:
        """Logits (B,classes) of values (B,T,bands)."""
        _, (_, cells) = self.lstm(self.norm(values))  # cells: (2 · layers, B, hidden)
        return self.head(self.state_norm(cells.transpose(0, 1).flatten(1)))


class InceptionTime(nn.Module):
    """InceptionTime (Ismail Fawaz et al., arXiv 1909.04939): values (B,T,bands) float32 → logits (B,classes).

    hidden: channels of a block, a quarter for each of its branches · kernel: dates that the widest of its convolutions
    spans; the others span a half and a quarter, each one more where that is even. frozen_random: the head alone learns,
    all else keeps its random start, as with the copy of the network behind the published numbers, whose blocks are in
    plain lists that PyTorch does not look into. Nor do these hear of evaluation mode, so their batch normalisation uses
    the statistics of the batch at hand, then too: a prediction depends on what else is in its batch. Raises ValueError
    for sizes below 1, hidden not divisible by 4, and a kernel below 4.
    """

    def __init__(self, bands: int, classes: int, layers: int, hidden: int, kernel: int, frozen_random: bool = False):
        super().__init__()
        _check_sizes(bands=bands, classes=classes, layers=layers, hidden=hidden)
        if hidden % 4:
            raise ValueError(f"hidden={hidden}: expected a multiple of 4, the branches of a block")
        if not isinstance(kernel, int) or kernel < 4:
            raise ValueError(f"kernel={kernel!r}: expected a whole number ≥ 4, since one branch has a quarter of it")
        running = not frozen_random
        widths = [bands] + [hidden] * (layers - 1)
        self.blocks = nn.ModuleList([_InceptionBlock(width, hidden, kernel, running) for width in widths])
        self.shortcuts = nn.ModuleList(
            nn.Sequential(_pointwise(width, hidden), nn.BatchNorm2d(hidden, track_running_stats=running))
            for width in widths[: layers - layers % RESIDUAL_EVERY : RESIDUAL_EVERY]
        )
        self.requires_grad_(running)
        self.head = nn.Linear(hidden, classes)

    def forward(self, values: Tensor) -> Tensor:
        """Logits (B,classes) of values (B,T,bands)."""
        features = kept = values.transpose(1, 2).unsqueeze(2)  # (B,bands,1,T), and channels last as it lies
        for i, block in enumerate(self.blocks, start=1):
            features = block(features)
            if i % RESIDUAL_EVERY == 0:
                features = kept = (features + self.shortcuts[i // RESIDUAL_EVERY - 1](kept)).relu()
        return self.head(features.mean(dim=(2, 3)))


class Transformer(nn.Module):
    """A Transformer encoder: values (B,T,bands) float32 → logits (B,classes), from each feature's maximum over time.

    d: features of a date, split among the heads; the feed-forward layers have 2d. Sinusoidal positions are added by the
    index of the date, of at most `max_length`; normalisation comes after each step (Vaswani et al., arXiv 1706.03762).
    Raises ValueError for sizes below 1, d odd or not divisible by heads, a dropout outside 0 … 1, and, when it is run,
    more dates than it has positions for.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        d: int,
        heads: int,
        layers: int,
        dropout: float = 0.0,
        max_length: int = MAX_LENGTH,
    ):
        super().__init__()
        _check_sizes(bands=bands, classes=classes, d=d, heads=heads, layers=layers, max_length=max_length)
        _check_dropout(dropout)
        if d % heads or d % 2:
            raise ValueError(f"d={d}, heads={heads}: expected d to be even and a multiple of heads")
        self.embedding = nn.Linear(bands, d)
        self.register_buffer("positions", _sinusoids(max_length, d), persistent=False)
        # nn.TransformerEncoder would copy one layer: all would start from the same weights.
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(d, heads, 2 * d, dropout, batch_first=True) for _ in range(layers))
        )
        self.head = nn.Linear(d, classes)

    def forward(self, values: Tensor) -> Tensor:
        """Logits (B,classes) of values (B,T,bands)."""
        dates, most = values.shape[1], len(self.positions)
        if dates > most:
            raise ValueError(f"values: {dates} dates, expected at most max_length={most}")
        features = self.layers(self.embedding(values) + self.positions[:dates])
        return self.head(features.amax(dim=1).relu())


def base_model(
    name: str, bands: int, classes: int, generator: Generator, **configuration: int | float | bool
) -> nn.Module:
    """A randomly initialised base model, one of BASE_MODELS: values (B,T,bands) float32 → logits (B,classes).

    configuration: one of `configurations`, less its learning_rate, and whatever else the model takes (BiLstm,
    InceptionTime, Transformer). Raises ValueError for an unknown name, and for a configuration that cannot be.
    """
    _check_name(name)
    model = {"lstm": BiLstm, "inception_time": InceptionTime, "transformer": Transformer}[name]
    signature = inspect.signature(model)
    try:
        signature.bind(bands, classes, **configuration)
    except TypeError as error:
        expected = ", ".join(list(signature.parameters)[2:])
        raise ValueError(f"configuration={configuration}: {error}; {name} takes {expected}") from error
    with drawn_from(generator):
        return model(bands, classes, **configuration)


def configurations(name: str, n: int, seed: int = 32, space: Space | None = None) -> list[dict[str, int | float]]:
    """The first n random configurations of a base model: for one seed and space, those of a smaller n come first.

    space: a list of choices, or a range (low, high) as a tuple, for each name; None for the published one, SPACES
    (section on downstream tasks; learning rates as in the authors' code, uniform). Drawn by Optuna's RandomSampler.
    Raises ValueError for an unknown name and an n that is no whole number ≥ 0.
    """
    import optuna  # it takes a second, and few need it
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    _check_name(name)
    if not isinstance(n, int) or n < 0:
        raise ValueError(f"n={n!r}: expected a whole number ≥ 0")
    space = SPACES[name] if space is None else space
    distributions = {
        key: FloatDistribution(*values) if isinstance(values, tuple) else CategoricalDistribution(values)
        for key, values in space.items()
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    drawn = (study.ask(distributions).params for _ in range(n))
    return [{key: params[key] for key in space} for params in drawn]


class _Residual(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.inner = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class _InceptionBlock(nn.Module):
    """Features (B,bands,1,T) → (B,hidden,1,T). No convolution has a bias: batch normalisation would take it away.

    They are images one pixel high: over the last axis of such, channels last, PyTorch convolves almost twice as fast on
    a CPU as nn.Conv1d.
    """

    def __init__(self, bands: int, hidden: int, kernel: int, running: bool):
        super().__init__()
        width = hidden // 4
        self.bottleneck = _pointwise(bands, width)
        spans = [span + 1 - span % 2 for span in (kernel, kernel // 2, kernel // 4)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, (1, span), padding=(0, span // 2), bias=False) for span in spans
        )
        self.pooled = nn.Sequential(nn.MaxPool2d((1, 3), stride=1, padding=(0, 1)), _pointwise(bands, width))
        self.norm = nn.BatchNorm2d(hidden, track_running_stats=running)

    def forward(self, features: Tensor) -> Tensor:
        narrow = self.bottleneck(features)
        branches = [*(convolution(narrow) for convolution in self.convolutions), self.pooled(features)]
        return self.norm(torch.cat(branches, dim=1)).relu()


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _sinusoids(length: int, d: int) -> Tensor:
    """Positions (length,d): sine and cosine in turn, at wavelengths from 2π to 10000 · 2π."""
    rates = torch.exp(torch.arange(0, d, 2) * (-math.log(10_000) / d))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)


def _check_name(name: str) -> None:
    if name not in BASE_MODELS:
        raise ValueError(f"model={name!r}: expected one of {', '.join(BASE_MODELS)}")


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number ≥ 1")


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout={dropout}: expected a number from 0 to 1")

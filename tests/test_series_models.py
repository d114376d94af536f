"""Networks for pixels and their series: shapes, gradients, weights from the generator alone, random configurations."""

import json
import logging
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, nn

from rsbook import series_models

SMALL = {
    "lstm": {"hidden": 8, "layers": 2, "dropout": 0.3},
    "inception_time": {"hidden": 8, "layers": 4, "kernel": 8},
    "transformer": {"d": 16, "heads": 2, "layers": 2},
}
FROZEN = {"layers": 4, "frozen_random": True}
LSTM = [(256, 5), (64, 6), (256, 5), (256, 2), (32, 2), (256, 2), (256, 4), (128, 2), (256, 4), (32, 6)]
INCEPTION_TIME = [
    (2, 128, 40),
    (2, 128, 80),
    (4, 512, 40),
    (4, 512, 80),
    (2, 128, 136),
    (4, 512, 120),
    (2, 512, 40),
    (2, 1024, 136),
    (4, 128, 80),
    (8, 512, 136),
]
TRANSFORMER = [
    (32, 2, 3),
    (32, 2, 4),
    (64, 8, 3),
    (64, 8, 4),
    (32, 2, 6),
    (64, 8, 5),
    (32, 8, 3),
    (32, 2, 6),
    (64, 2, 4),
    (128, 8, 6),
]


def make(name, seed=0, bands=5, classes=3, **change):
    return series_models.base_model(name, bands, classes, Generator().manual_seed(seed), **SMALL[name] | change)


def values(seed=1, batch=6, dates=20, bands=5):
    return torch.randn(batch, dates, bands, generator=Generator().manual_seed(seed))


def count(module):
    return sum(p.numel() for p in module.parameters())


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# The encoder that is pre-trained


@pytest.mark.parametrize(("inputs", "whole", "without_tail"), [(12, 598_016, 531_712), (36, 604_160, 537_856)])
def test_the_encoder_has_as_many_parameters_as_that_of_the_authors_code(inputs, whole, without_tail):
    encoder = series_models.res_mlp(inputs, Generator())
    assert count(encoder) == whole
    assert count(encoder[:-3]) == without_tail
    assert [type(step) for step in encoder[-3:]] == [nn.BatchNorm1d, nn.ReLU, nn.Linear]


def test_the_encoder_is_what_its_blocks_say_it_is():
    encoder = series_models.res_mlp(4, Generator().manual_seed(0), width=8, blocks=2)
    x = values(batch=7, dates=4)[:, :, 0]
    expected = x @ encoder[0].weight.T + encoder[0].bias
    for block in encoder[1:3]:
        norm, first, _, _, second, _ = block.inner
        inner = (expected - expected.mean(dim=0)) / (expected.var(dim=0, correction=0) + norm.eps).sqrt()
        inner = (inner @ first.weight.T + first.bias).clamp(min=0)
        expected = expected + inner @ second.weight.T + second.bias
    expected = (expected - expected.mean(dim=0)) / (expected.var(dim=0, correction=0) + 1e-5).sqrt()
    expected = expected.clamp(min=0) @ encoder[-1].weight.T + encoder[-1].bias
    torch.testing.assert_close(encoder(x), expected)


def test_dropout_of_the_encoder_is_in_its_blocks():
    encoder = series_models.res_mlp(4, Generator(), width=8, blocks=3, dropout=0.4)
    assert [step.p for step in encoder.modules() if isinstance(step, nn.Dropout)] == [0.4] * 6


def test_the_projector_is_two_layers_with_normalisation_after_the_activation():
    projector = series_models.projector(Generator())
    assert [type(step) for step in projector] == [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Linear]
    assert count(projector) == 2 * (256 * 256 + 256) + 2 * 256
    assert projector(torch.randn(4, 256)).shape == (4, 256)


@pytest.mark.parametrize("module", [series_models.res_mlp(12, Generator()), series_models.projector(Generator())])
def test_gradients_reach_every_parameter_of_encoder_and_projector(module):
    inputs = next(module.parameters()).shape[1]
    module(torch.randn(8, inputs)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


# Base models


@pytest.mark.parametrize("name", series_models.BASE_MODELS)
@pytest.mark.parametrize(("bands", "classes"), [(1, 1), (12, 9), (256, 6)])
@pytest.mark.parametrize("dates", [1, 2, 13, 144])
def test_logits_have_one_column_a_class_for_any_bands_and_dates(name, bands, classes, dates):
    model = make(name, bands=bands, classes=classes).eval()
    logits = model(values(batch=3, dates=dates, bands=bands))
    assert logits.shape == (3, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", series_models.BASE_MODELS)
def test_a_series_has_the_same_logits_alone_and_in_a_batch(name):
    model, x = make(name).eval(), values()
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))


@pytest.mark.parametrize("name", series_models.BASE_MODELS)
def test_gradients_reach_every_parameter_and_every_date(name):
    model, x = make(name), values(batch=32).requires_grad_()
    logits = model(x)
    (logits * torch.randn(logits.shape, generator=Generator().manual_seed(2))).sum().backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert missing == []
    assert (x.grad.abs().amax(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize("name", series_models.BASE_MODELS)
def test_base_models_learn_where_in_time_a_signal_is(name):
    generator = Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    x = 0.3 * torch.randn(64, 12, 5, generator=generator)
    x[labels == 0, 2:5, 0] += 3
    x[labels == 1, 7:10, 0] += 3
    model = make(name, classes=2)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    assert (model.eval()(x).argmax(dim=1) == labels).float().mean() > 0.95


@pytest.mark.parametrize("name", series_models.BASE_MODELS)
def test_weights_depend_on_the_generator_alone(name):
    torch.manual_seed(1)
    first = make(name)
    torch.manual_seed(2)
    assert same(first, make(name))
    assert not same(first, make(name, seed=1))


def test_one_generator_gives_other_weights_each_time():
    generator = Generator().manual_seed(0)
    for make_one in (lambda: series_models.res_mlp(4, generator, 8), lambda: series_models.projector(generator, 8)):
        first, second = make_one(), make_one()
        assert not same(first, second)


def test_global_random_state_is_left_as_it_was():
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for name in series_models.BASE_MODELS:
        make(name)
        series_models.configurations(name, 3)
    series_models.res_mlp(12, Generator())
    series_models.projector(Generator())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


# LSTM


def test_the_lstm_classifies_the_last_cell_states_of_all_layers_and_directions():
    model, x = make("lstm").eval(), values()
    normed = (x - x.mean(dim=2, keepdim=True)) / (x.var(dim=2, correction=0, keepdim=True) + 1e-5).sqrt()
    by_hand = nn.LSTM(5, 8, 2, bias=False, batch_first=True, bidirectional=True)
    by_hand.load_state_dict(model.lstm.state_dict())
    _, (_, cells) = by_hand(normed)
    joined = torch.cat(list(cells), dim=1)  # layer by layer, forwards and backwards: 4 × 8
    joined = (joined - joined.mean(dim=1, keepdim=True)) / (joined.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(model(x), joined @ model.head.weight.T + model.head.bias)


def test_the_cells_of_the_lstm_are_those_of_its_equations():
    model, x = make("lstm", layers=1).eval(), values(batch=1)
    rows = model.norm(x)[0]
    states = []
    for suffix, order in (("l0", rows), ("l0_reverse", rows.flip(0))):
        into, back = (getattr(model.lstm, f"weight_{kind}_{suffix}") for kind in ("ih", "hh"))
        hidden = cell = torch.zeros(8)
        for row in order:
            i, f, g, o = (into @ row + back @ hidden).split(8)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        states.append(cell)
    torch.testing.assert_close(model(x)[0], model.head(model.state_norm(torch.cat(states))))


def test_dropout_of_the_lstm_is_between_layers_and_in_training_alone():
    model, x = make("lstm", dropout=0.5), values()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    alone = make("lstm", dropout=0.5, layers=1)  # without a warning
    assert torch.equal(alone(x), alone(x))


# InceptionTime


def slow_convolution(features, weight):
    """(B,C,T) and (K,C,span) → (B,K,T), padded with zeros, date by date."""
    span, dates = weight.shape[2], features.shape[2]
    padded = nn.functional.pad(features, (span // 2, span // 2))
    return torch.stack([torch.einsum("bcs,kcs->bk", padded[:, :, t : t + span], weight) for t in range(dates)], dim=2)


def normalised(features):
    mean, var = features.mean(dim=(0, 2), keepdim=True), features.var(dim=(0, 2), correction=0, keepdim=True)
    return (features - mean) / (var + 1e-5).sqrt()


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7])
def test_inception_time_is_what_its_description_says_it_is(layers):
    model, x = make("inception_time", layers=layers).double(), values().double()
    features = kept = x.transpose(1, 2)
    for i, block in enumerate(model.blocks):
        weights = [one.weight[:, :, 0] for one in (block.bottleneck, *block.convolutions, block.pooled[1])]
        assert [w.shape[2] for w in weights] == [1, 9, 5, 3, 1]
        narrow = slow_convolution(features, weights[0])
        padded = nn.functional.pad(features, (1, 1), value=-math.inf)
        pooled = torch.stack([padded[:, :, t : t + 3].amax(dim=2) for t in range(features.shape[2])], dim=2)
        branches = [slow_convolution(narrow, w) for w in weights[1:4]] + [slow_convolution(pooled, weights[4])]
        features = normalised(torch.cat(branches, dim=1)).relu()
        if i % 3 == 2:
            shortcut = slow_convolution(kept, model.shortcuts[i // 3][0].weight[:, :, 0])
            features = kept = (features + normalised(shortcut)).relu()
    assert len(model.shortcuts) == layers // 3
    assert all(one.bias is None for one in model.modules() if isinstance(one, nn.Conv2d))
    torch.testing.assert_close(model(x), model.head(features.mean(dim=2)))


@pytest.mark.parametrize(
    ("kernel", "spans"),
    [
        (4, [5, 3, 1]),
        (6, [7, 3, 1]),
        (40, [41, 21, 11]),
        (80, [81, 41, 21]),
        (120, [121, 61, 31]),
        (136, [137, 69, 35]),
    ],
)
def test_kernels_span_a_whole_a_half_and_a_quarter_made_odd(kernel, spans):
    [block] = make("inception_time", layers=1, kernel=kernel).blocks
    assert [one.kernel_size for one in block.convolutions] == [(1, span) for span in spans]


def test_kernels_may_be_wider_than_the_series():
    assert make("inception_time", kernel=136).eval()(values(dates=5)).isfinite().all()


def test_of_the_frozen_network_the_head_alone_learns():
    model, x = make("inception_time", **FROZEN), values()
    free = make("inception_time", layers=4)
    for (key, ours), (other, theirs) in zip(model.named_parameters(), free.named_parameters(), strict=True):
        assert key == other
        assert torch.equal(ours, theirs)  # the random start is the same
        assert theirs.requires_grad
        assert ours.requires_grad is key.startswith("head.")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    model(x).square().sum().backward()
    optimiser.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"head.weight", "head.bias"}


def test_the_frozen_network_normalises_by_the_batch_at_hand_in_evaluation_too():
    model, x = make("inception_time", **FROZEN), values()
    in_training = model.train()(x)
    assert torch.equal(model.eval()(x), in_training)
    assert not torch.allclose(model(x[:3]), in_training[:3])
    free = make("inception_time", layers=4)
    torch.testing.assert_close(free.train()(x), in_training)
    assert not torch.allclose(free.eval()(x), in_training)


# Transformer


def test_the_transformer_heeds_the_order_of_dates():
    model, x = make("transformer").eval(), values()
    turned = x.flip(1)
    assert not torch.allclose(model(x), model(turned), atol=1e-3)
    model.positions.zero_()
    torch.testing.assert_close(model(x), model(turned))  # without positions it would not


def test_positions_are_sines_and_cosines_of_the_index_of_the_date():
    positions = make("transformer").positions
    assert positions.shape == (150, 16)
    for date in (0, 1, 77, 149):
        for i in range(8):
            angle = date / 10_000 ** (2 * i / 16)
            expected = [math.sin(angle), math.cos(angle)]
            assert positions[date, 2 * i : 2 * i + 2].tolist() == pytest.approx(expected, abs=1e-4)
    assert "positions" not in make("transformer").state_dict()


def attention(layer, x, heads):
    batch, dates, d = x.shape
    projected = x @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias
    q, k, v = (part.view(batch, dates, heads, d // heads).transpose(1, 2) for part in projected.split(d, dim=2))
    weights = (q @ k.transpose(2, 3) / math.sqrt(d // heads)).softmax(dim=3)
    return layer.self_attn.out_proj((weights @ v).transpose(1, 2).reshape(batch, dates, d))


def test_the_transformer_is_what_its_description_says_it_is():
    model, x = make("transformer").eval(), values()
    features = x @ model.embedding.weight.T + model.embedding.bias + model.positions[:20]
    for layer in model.layers:
        features = layer.norm1(features + attention(layer, features, 2))
        assert layer.linear1.out_features == 32
        features = layer.norm2(features + layer.linear2(layer.linear1(features).relu()))
    expected = features.max(dim=1).values.relu() @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)
    with torch.inference_mode():  # where PyTorch takes another path
        torch.testing.assert_close(model(x), expected)


def test_layers_of_the_transformer_do_not_start_from_the_same_weights():
    first, second = make("transformer").layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_more_dates_than_positions_are_an_error():
    model = make("transformer")
    assert model(values(dates=150)).shape == (6, 3)
    with pytest.raises(ValueError, match="values: 151 dates, expected at most max_length=150"):
        model(values(dates=151))
    assert make("transformer", max_length=151)(values(dates=151)).shape == (6, 3)


# Names and configurations that cannot be


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lstm", {"hidden": 0}, "hidden=0: expected a whole number ≥ 1"),
        ("lstm", {"layers": 1.5}, "layers=1.5: expected a whole number"),
        ("lstm", {"dropout": 1.1}, "dropout=1.1: expected a number from 0 to 1"),
        ("lstm", {"bands": 0}, "bands=0"),
        ("transformer", {"classes": 0}, "classes=0"),
        ("inception_time", {"hidden": 10}, "hidden=10: expected a multiple of 4"),
        ("inception_time", {"kernel": 3}, "kernel=3: expected a whole number ≥ 4"),
        ("inception_time", {"kernel": 40.0}, "kernel=40.0: expected a whole number"),
        ("inception_time", {"layers": 0}, "layers=0"),
        ("transformer", {"d": 16, "heads": 3}, "d=16, heads=3: expected d to be even and a multiple of heads"),
        ("transformer", {"d": 15, "heads": 3}, "d=15, heads=3"),
        ("transformer", {"heads": 0}, "heads=0: expected a whole number"),
        ("transformer", {"max_length": 0}, "max_length=0"),
        ("transformer", {"dropout": -0.1}, "dropout=-0.1"),
        ("lstm", {"kernel": 40}, "unexpected keyword argument 'kernel'; lstm takes hidden, layers, dropout"),
        ("transformer", {"learning_rate": 1e-3}, "learning_rate.*transformer takes d, heads, layers"),
    ],
)
def test_configurations_that_cannot_be_are_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        make(name, **change)


def test_a_configuration_that_lacks_something_is_refused():
    with pytest.raises(ValueError, match=r"configuration=\{'hidden': 8\}: missing a required argument: 'layers'"):
        series_models.base_model("lstm", 5, 3, Generator(), hidden=8)


@pytest.mark.parametrize("call", [make, lambda name: series_models.configurations(name, 1)])
def test_an_unknown_model_is_refused(call, monkeypatch):
    monkeypatch.setitem(SMALL, "gru", {})
    with pytest.raises(ValueError, match="model='gru': expected one of lstm, inception_time, transformer"):
        call("gru")


@pytest.mark.parametrize("change", [{"inputs": 0}, {"width": 0}, {"blocks": 0}, {"dropout": 2}])
def test_encoders_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=r"=\d: expected a"):
        series_models.res_mlp(**{"inputs": 4, "generator": Generator()} | change)
    with pytest.raises(ValueError, match="width=0: expected a whole number"):
        series_models.projector(Generator(), 0)


# Random configurations


def lies_in(value, choices):
    return choices[0] <= value <= choices[1] if isinstance(choices, tuple) else value in choices


@settings(deadline=None, derandomize=True, max_examples=30)
@given(name=st.sampled_from(series_models.BASE_MODELS), seed=st.integers(0, 2**31), n=st.integers(0, 12))
def test_configurations_lie_in_the_space_and_a_longer_list_starts_with_a_shorter_one(name, seed, n):
    found = series_models.configurations(name, n, seed)
    space = series_models.SPACES[name]
    assert len(found) == n
    for one in found:
        assert list(one) == list(space)
        assert all(lies_in(one[key], space[key]) for key in space)
    assert series_models.configurations(name, n + 3, seed)[:n] == found
    assert json.loads(json.dumps(found)) == found


def test_the_ten_configurations_of_the_book_are_these_whatever_the_version_of_optuna():
    found = {name: series_models.configurations(name, 10) for name in series_models.BASE_MODELS}
    assert [(c["hidden"], c["layers"]) for c in found["lstm"]] == LSTM
    assert [(c["layers"], c["hidden"], c["kernel"]) for c in found["inception_time"]] == INCEPTION_TIME
    assert [(c["d"], c["heads"], c["layers"]) for c in found["transformer"]] == TRANSFORMER
    assert found["lstm"][0]["dropout"] == pytest.approx(0.357932, abs=1e-6)
    assert found["transformer"][0]["learning_rate"] == pytest.approx(3.517344e-4, abs=1e-9)


@pytest.mark.parametrize("name", series_models.BASE_MODELS)
def test_every_published_configuration_makes_a_model(name):
    for configuration in series_models.configurations(name, 6):
        configuration.pop("learning_rate")
        with torch.device("meta"):  # shapes alone: the widest have half a billion weights
            model = series_models.base_model(name, 12, 9, Generator(), **configuration)
            assert model(torch.empty(2, 8, 12)).shape == (2, 9)


def test_configurations_are_spread_over_the_space():
    drawn = series_models.configurations("lstm", 400)
    for key in ("hidden", "layers"):
        choices = series_models.SPACES["lstm"][key]
        shares = [sum(c[key] == choice for c in drawn) / 400 for choice in choices]
        assert shares == pytest.approx([1 / len(choices)] * len(choices), abs=0.07)
    for key, (low, high) in (("dropout", (0.0, 0.6)), ("learning_rate", (1e-5, 1e-3))):
        scaled = sorted((c[key] - low) / (high - low) for c in drawn)
        assert max(abs(x - i / 400) for i, x in enumerate(scaled)) < 0.08  # uniform, not log-uniform


def test_a_space_of_ones_own_and_another_seed():
    space = {"layers": [1, 2], "dropout": (0.1, 0.2)}
    found = series_models.configurations("lstm", 20, space=space)
    assert {c["layers"] for c in found} == {1, 2}
    assert all(list(c) == ["layers", "dropout"] and 0.1 <= c["dropout"] <= 0.2 for c in found)
    assert found != series_models.configurations("lstm", 20, seed=33, space=space)
    assert type(found[0]["layers"]) is int
    assert type(found[0]["dropout"]) is float


def test_drawing_configurations_says_nothing():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.INFO)
    said, logger = [], logging.getLogger("optuna")
    handler = logging.Handler()
    handler.emit = said.append
    logger.addHandler(handler)
    series_models.configurations("lstm", 2)
    logger.removeHandler(handler)
    assert said == []


@pytest.mark.parametrize("n", [-1, 1.0])
def test_a_number_of_configurations_that_is_none_is_refused(n):
    with pytest.raises(ValueError, match=f"n={n}: expected a whole number ≥ 0"):
        series_models.configurations("lstm", n)

"""Mixing by one share a batch: distributions against scipy's, areas and spectra of masks, hooks that do not stay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest
from torch import Generator, nn

from rsbook import batch_mixing

STAGES = 4


def generator(seed=0):
    return Generator().manual_seed(seed)


def network():
    """A chain of layers of which each output is seen in what comes out."""
    model = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()) for _ in range(STAGES)))
    draws = generator(9)
    for weights in model.parameters():
        nn.init.normal_(weights, std=0.3, generator=draws)
    return model


def batch(seed=0, n=5):
    images = torch.randn(n, 3, 6, 7, generator=generator(seed))
    return images, torch.randperm(n, generator=generator(seed + 1))


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_have_the_moments_and_the_distribution_of_beta(alpha):
    draws = generator(1)
    shares = np.array([batch_mixing.sample_share(alpha, draws) for _ in range(4000)])
    assert ((shares >= 0) & (shares <= 1)).all()
    assert shares.mean() == pytest.approx(0.5, abs=0.025)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.01


def test_a_share_depends_on_its_generator_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = [batch_mixing.sample_share(0.2, draws) for draws in [generator(5)] for _ in range(3)]
    torch.rand(7)
    torch.set_rng_state(before[0])
    assert first == [batch_mixing.sample_share(0.2, draws) for draws in [generator(5)] for _ in range(3)]
    assert len(set(first)) == 3
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_a_share_needs_a_positive_alpha(alpha):
    with pytest.raises(ValueError, match="alpha="):
        batch_mixing.sample_share(alpha, generator())


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**31))
def test_the_area_of_a_mask_is_the_share_but_for_rounding(height, width, share, seed):
    mask = batch_mixing.fmix_mask(height, width, share, generator(seed))
    assert mask.shape == (height, width)
    assert mask.dtype == torch.bool
    assert abs(mask.sum().item() - share * height * width) < 1 + 1e-5


def test_areas_are_rounded_up_as_often_as_down_and_whole_ones_not_at_all():
    draws = generator(2)
    found = [batch_mixing.fmix_mask(5, 5, 0.33, draws).sum().item() for _ in range(400)]  # 8.25
    assert set(found) == {8, 9}
    assert found.count(9) == pytest.approx(200, abs=40)
    for share, pixels in ((0.57, 228), (0.07, 28)):  # 227.999… and 28.000…01
        assert {batch_mixing.fmix_mask(20, 20, share, draws).sum().item() for _ in range(20)} == {pixels}
    assert not batch_mixing.fmix_mask(4, 9, 0.0, draws).any()
    assert batch_mixing.fmix_mask(4, 9, 1.0, draws).all()


@pytest.mark.parametrize(("height", "width"), [(12, 17), (9, 8)])
def test_a_mask_holds_the_highest_pixels_of_its_noise(height, width):
    noise = batch_mixing.low_pass_noise(height, width, generator(3))
    mask = batch_mixing.fmix_mask(height, width, 0.4, generator(3))
    assert noise[mask].min() > noise[~mask].max()


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 128)])
def test_the_power_of_the_noise_falls_with_twice_the_decay(decay, height, width):
    draws = generator(4)
    noise = torch.stack([batch_mixing.low_pass_noise(height, width, draws, decay) for _ in range(20)])
    power = torch.fft.fft2(noise).abs().square().mean(dim=0).flatten()
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)).flatten().double()
    used = frequency > 1 / max(height, width)  # at and below it, nothing decays any more
    slope, _ = np.polyfit(frequency[used].log(), power[used].log(), 1)
    assert slope == pytest.approx(-2 * decay, abs=0.05)


def test_more_decay_makes_fewer_borders():
    def borders(decay):
        draws = generator(6)
        masks = torch.stack([batch_mixing.fmix_mask(64, 64, 0.5, draws, decay) for _ in range(10)])
        return (masks[:, 1:] != masks[:, :-1]).float().mean()

    assert borders(0.0) > 4 * borders(2.0) > 4 * borders(4.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0.5), "height=0"),
        ((4, 0, 0.5), "width=0"),
        ((4, 4, 1.5), "share=1.5"),
        ((4, 4, float("nan")), "share=nan"),
    ],
)
def test_masks_refuse_what_they_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        batch_mixing.fmix_mask(*arguments, generator())
    with pytest.raises(ValueError, match="decay=-1"):
        batch_mixing.fmix_mask(4, 4, 0.5, generator(), decay=-1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_mixup_weighs_every_number_by_the_share(share):
    images, partner = batch()
    mixed = batch_mixing.mixup(images, share, partner)
    for i, j in enumerate(partner.tolist()):
        torch.testing.assert_close(mixed[i], share * images[i] + (1 - share) * images[j])


def test_a_share_of_one_changes_nothing_and_of_none_gives_the_partner():
    images, partner = batch()
    assert torch.equal(batch_mixing.mixup(images, 1.0, partner), images)
    assert torch.equal(batch_mixing.mixup(images, 0.0, partner), images[partner])


def test_mixup_refuses_what_it_cannot_mix():
    images, partner = batch()
    with pytest.raises(ValueError, match=r"share=-0\.1"):
        batch_mixing.mixup(images, -0.1, partner)
    with pytest.raises(ValueError, match="images: expected floats"):
        batch_mixing.mixup(images.byte(), 0.5, partner)
    with pytest.raises(ValueError, match="partner: expected int64"):
        batch_mixing.mixup(images, 0.5, partner[1:])
    with pytest.raises(ValueError, match="partner: expected int64"):
        batch_mixing.mixup(images, 0.5, partner.int())


@pytest.mark.parametrize("seed", range(12))
def test_manifold_mixup_mixes_where_it_says_and_nowhere_else(seed):
    model, (images, partner) = network(), batch(seed)
    with batch_mixing.manifold_mixup(list(model), 0.3, partner, generator(seed), network=model) as chosen:
        assert hooks(model) == 1
        found = model(images)
    expected = batch_mixing.mixup(images, 0.3, partner) if chosen is model else images
    for stage in model:
        expected = stage(expected)
        if stage is chosen:
            expected = 0.3 * expected + 0.7 * expected[partner]
    torch.testing.assert_close(found, expected)
    assert hooks(model) == 0
    assert not torch.allclose(found, model(images))


def test_every_stage_and_the_input_are_equally_likely():
    model, (images, partner) = network(), batch()
    draws, found = generator(8), []
    for _ in range(500):
        with batch_mixing.manifold_mixup(list(model), 0.5, partner, draws, network=model) as chosen:
            model(images)
        found.append(id(chosen))
    counts = [found.count(id(module)) for module in (*model, model)]
    assert sum(counts) == 500
    assert min(counts) > 70
    with batch_mixing.manifold_mixup(model[1:2], 0.5, partner, draws) as chosen:
        model(images)
    assert chosen is model[1]


@pytest.mark.parametrize("seed", range(6))
def test_manifold_mixup_with_a_share_of_one_is_the_identity(seed):
    model, (images, partner) = network(), batch()
    with batch_mixing.manifold_mixup(list(model), 1.0, partner, generator(seed), network=model):
        found = model(images)
    assert torch.equal(found, model(images))


def test_gradients_reach_the_partner_through_what_is_mixed():
    model, (images, _) = network(), batch()
    images.requires_grad_()
    with batch_mixing.manifold_mixup(model[:1], 0.25, torch.tensor([1, 2, 3, 4, 0]), generator()):
        found = model(images)
    found[0].sum().backward()
    assert (images.grad.flatten(1).abs().amax(dim=1) > 0).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("seed", range(6))
def test_no_hook_stays_after_an_error(seed):
    model, (images, partner) = network(), batch()
    entered = batch_mixing.manifold_mixup(list(model), 0.5, partner, generator(seed), network=model)
    with pytest.raises(RuntimeError), entered:  # of the layers: these images have two bands too many
        model(torch.randn(5, 5, 6, 7))
    assert hooks(model) == 0
    entered = batch_mixing.manifold_mixup(list(model), 0.5, partner[1:], generator(seed), network=model)
    with pytest.raises(ValueError, match="partner: expected int64"), entered:
        model(images)
    assert hooks(model) == 0


class Pair(nn.Module):
    """Gives two tensors, as some stages do."""

    def forward(self, x):
        return x, x


def test_manifold_mixup_refuses_what_it_cannot_mix():
    model, (images, partner) = network(), batch()
    with pytest.raises(ValueError, match="at least one"), batch_mixing.manifold_mixup([], 0.5, partner, generator()):
        pass
    with pytest.raises(ValueError, match="share=2"), batch_mixing.manifold_mixup(model, 2, partner, generator()):
        pass
    pair = Pair()
    with pytest.raises(ValueError, match="found tuple"), batch_mixing.manifold_mixup([pair], 0.5, partner, generator()):
        pair(images)
    for times in (0, 2):
        entered = batch_mixing.manifold_mixup(model[:1], 0.5, partner, generator())
        with pytest.raises(ValueError, match=f"number 0, ran {times} times"), entered:
            [model(images) for _ in range(times)]
    assert hooks(model) + hooks(pair) == 0

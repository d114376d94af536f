"""What methods of Part IV keep while they train, against slow ways to say the same."""

import math
from copy import deepcopy

import pytest
import torch
from torch import Generator, nn

from rsbook import metrics, single_positive, single_positive_tasks, training
from rsbook.single_positive_tasks import OPTIONS, Learner, SinglePositive

EPOCHS = 4


class Flat(nn.Module):
    """A linear network after batch normalisation."""

    def __init__(self, scenes):
        super().__init__()
        bands, height, width = scenes.images.shape[1:]
        self.norm = nn.BatchNorm2d(bands)
        self.linear = nn.Linear(bands * height * width, len(scenes.classes))

    def forward(self, images):
        return self.linear(self.norm(images).flatten(1))


@pytest.fixture
def observed(tiny_scenes):
    return single_positive.random_positive(tiny_scenes.labels, Generator().manual_seed(1))


def made(scenes, observed, method, **options):
    torch.manual_seed(3)
    learner = Learner(Flat(scenes), method, observed[:8], EPOCHS, Generator().manual_seed(4))
    task = SinglePositive(
        scenes,
        torch.arange(8),
        observed[:8],
        torch.arange(8, 12),
        observed[8:12],
        learner,
        method=method,
        epochs=EPOCHS,
        options=options,
    )
    task.to(torch.device("cpu"))
    return learner, task


def trained(scenes, observed, method, epochs=EPOCHS, **options):
    """A learner after some epochs of plain steps, and the losses."""
    learner, task = made(scenes, observed, method, **options)
    optimiser = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for epoch in range(epochs):
        learner.train()
        for step in range(2):
            batch = task.batch(torch.arange(4 * step, 4 * step + 4), Generator().manual_seed(10 * epoch + step))
            loss = task.loss(learner, batch, epoch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return learner, task, losses


@pytest.mark.parametrize("method", single_positive.LOSSES)
def test_every_method_trains_and_its_state_is_finite(tiny_scenes, observed, method):
    learner, task, losses = trained(tiny_scenes, observed, method)
    assert all(math.isfinite(loss) for loss in losses)
    for name, value in learner.state_dict().items():
        assert value.isfinite().all(), name
    found = task.evaluate(learner)
    assert found["map_observed"] == pytest.approx(
        metrics.map_macro(training.predict(learner.reported, tiny_scenes, task.val), observed[8:12])
    )


def test_the_teacher_is_an_average_of_weights_and_statistics(tiny_scenes, observed):
    learner, _ = made(tiny_scenes, observed, "adagc")
    expected = {name: value.double() for name, value in learner.network.state_dict().items()}
    images = tiny_scenes.normalise(tiny_scenes.images[:4])
    for step in range(40):
        with torch.no_grad():
            for p in learner.network.parameters():
                p.add_(torch.randn(p.shape, generator=Generator().manual_seed(step)))
        learner.network.train()
        learner.network(images)  # moves the statistics
        memory = min(0.6, (1 + step) / (10 + step))
        for name, value in learner.network.state_dict().items():
            average = memory * expected[name] + (1 - memory) * value.double()
            expected[name] = average if value.is_floating_point() else value.double()
        scores = learner.teach(images, 0.6)
    for name, value in learner.teacher.state_dict().items():
        assert torch.allclose(value.double(), expected[name], atol=1e-4), name
    assert not learner.teacher.training
    assert torch.equal(scores, learner.teacher(images).sigmoid())
    assert not any(p.requires_grad for p in learner.teacher.parameters())


def test_without_memory_the_teacher_is_the_student(tiny_scenes, observed):
    learner, _, _ = trained(tiny_scenes, observed, "adagc", weights_memory=0.0)
    learner.teach(tiny_scenes.normalise(tiny_scenes.images[:4]), 0.0)
    for own, new in zip(learner.teacher.parameters(), learner.network.parameters(), strict=True):
        assert torch.equal(own, new)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_adagc_step_by_step(tiny_scenes, observed, memory):
    """Losses and targets are those of a plain loop over scenes, with and without Mixup."""
    for mixup in (True, False):
        learner, _, losses = trained(
            tiny_scenes, observed, "adagc", begin=2, strength=1.5, scores_memory=memory, weights_memory=0.6, mixup=mixup
        )
        other, task = made(tiny_scenes, observed, "adagc")
        network, teacher = other.network, deepcopy(other.network)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
        stored, expected = torch.zeros(8, 3, dtype=torch.float64), []
        for epoch in range(EPOCHS):
            for step in range(2):
                images, _, rows, partner, share = task.batch(
                    torch.arange(4 * step, 4 * step + 4), Generator().manual_seed(10 * epoch + step)
                )
                count = 2 * epoch + step
                weight = min(0.6, (1 + count) / (10 + count))
                with torch.no_grad():
                    for own, new in zip(teacher.state_dict().values(), network.state_dict().values(), strict=True):
                        own.copy_(weight * own + (1 - weight) * new if own.is_floating_point() else new)
                    teacher.eval()
                    for k, i in enumerate(rows.tolist()):
                        score = teacher(images[k : k + 1]).sigmoid()[0]
                        stored[i] = memory * stored[i] + (1 - memory) * score
                z = observed[rows].float()
                t = (stored[rows] / (1 - memory ** (epoch + 1))).clamp(1e-4, 1 - 1e-4).float()
                if epoch >= 2 and mixup:
                    images, z, t = (share * a + (1 - share) * a[partner] for a in (images, z, t))
                network.train()
                p = network(images).sigmoid()
                loss = 0.0
                for i in range(4):
                    for c in range(3):
                        loss = loss - z[i, c] * p[i, c].log() - (1 - z[i, c]) * (1 - p[i, c]).log()
                        if epoch >= 2:
                            loss = loss + 1.5 * (1 - z[i, c]) * (1 - p[i, c] * t[i, c]).log()
                loss = loss / 12
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                expected.append(loss.item())
        assert losses == pytest.approx(expected, abs=2e-4)
        assert torch.allclose(learner.targets.double(), stored, atol=1e-3)
        assert learner.visits.tolist() == [EPOCHS] * 8


@pytest.mark.parametrize(("begin", "expected"), [(0, 0), (1, 1), (3, 3), (EPOCHS, -1)])
def test_a_fixed_warm_up_is_as_long_as_it_says(tiny_scenes, observed, begin, expected):
    learner, task, _ = trained(tiny_scenes, observed, "adagc", begin=begin)
    assert int(learner.begun) == expected
    assert task.evaluate(learner)["begun"] == expected


def test_the_trigger_sees_the_teacher_and_falls_back_at_half_time(tiny_scenes, observed, monkeypatch):
    calls = []

    def silent(precision, unobserved):
        calls.append((list(precision), list(unobserved)))

    monkeypatch.setattr(single_positive, "trigger", silent)
    learner, _, _ = trained(tiny_scenes, observed, "adagc")
    assert int(learner.begun) == EPOCHS // 2
    assert [len(precision) for precision, _ in calls] == [0, 1, 2]
    monkeypatch.setattr(single_positive, "trigger", lambda precision, unobserved: 1 if precision else None)
    learner, task, _ = trained(tiny_scenes, observed, "adagc", epochs=2)
    assert int(learner.begun) == 1
    found = task.evaluate(learner)
    latest = learner.latest
    assert found["unobserved"] == pytest.approx(latest[~observed[:8]].mean().item())
    assert found["precision"] == pytest.approx(metrics.map_macro(latest, observed[:8]))
    learner.visits[3] = 0  # what was never in a batch has no score yet
    seen = torch.arange(8) != 3
    found, latest = task.evaluate(learner), latest[seen]
    assert found["unobserved"] == pytest.approx(latest[~observed[:8][seen]].mean().item())
    hidden = (tiny_scenes.labels[:8] & ~observed[:8])[seen]
    assert found["score_hidden"] == pytest.approx(latest[hidden].mean().item())
    assert found["score_absent"] == pytest.approx(latest[~tiny_scenes.labels[:8][seen]].mean().item())


def test_em_apl_marks_the_lowest_scores_of_each_class(tiny_scenes, observed):
    learner, task = made(tiny_scenes, observed, "em_apl", begin=2)
    share = single_positive_tasks.MARKED_IN_ALL / (EPOCHS - 2)
    for epoch in range(EPOCHS):
        learner.latest.copy_(torch.rand(8, 3, generator=Generator().manual_seed(epoch)))
        before, latest = learner.marked.clone(), learner.latest.clone()
        task._begin(epoch)
        if epoch < 2:
            assert not learner.marked.any()
            continue
        for c in range(3):
            free = [i for i in range(8) if not observed[i, c] and not before[i, c]]
            count = min(round(share * sum(not o for o in observed[:8, c].tolist())), len(free))
            lowest = sorted(free, key=lambda i, c=c: latest[i, c].item())[:count]
            assert set(lowest) == set((learner.marked & ~before)[:, c].nonzero()[:, 0].tolist())
            assert all(learner.targets[i, c] == latest[i, c] for i in lowest)
    assert not (learner.marked & observed[:8]).any()
    assert learner.marked.sum() > 0.8 * (~observed[:8]).sum()


def test_large_loss_permanent_marks_for_good_and_not_in_the_first_epoch(tiny_scenes, observed):
    counts = []
    for epochs in range(1, EPOCHS + 1):
        learner, _, _ = trained(tiny_scenes, observed, "ll_cp", epochs=epochs, rate=0.1)
        assert not (learner.marked & observed[:8]).any()
        counts.append(int(learner.marked.sum()))
    assert counts == [2 * math.ceil(12 * 0.1) * epoch for epoch in range(EPOCHS)]


def test_role_begins_near_one_half_and_sure_of_what_is_observed(tiny_scenes, observed):
    learner, _ = made(tiny_scenes, observed, "role")
    soft = (single_positive_tasks.FASTER * learner.estimates).sigmoid()
    assert torch.allclose(soft[observed[:8]], torch.tensor(0.995))
    others = soft[~observed[:8]]
    assert ((others > 0.4) & (others < 0.6)).all()
    after, _, _ = trained(tiny_scenes, observed, "role", positives=2.0)
    assert (after.estimates != learner.estimates).any()


def test_elr_stores_the_students_scores(tiny_scenes, observed):
    learner, _, _ = trained(tiny_scenes, observed, "ml_elr", epochs=1)
    assert torch.allclose(learner.targets, 0.3 * learner.latest, atol=1e-4)


def test_options_that_a_method_does_not_take():
    assert single_positive_tasks.checked("em", {"alpha": 0.2}) == {"alpha": 0.2}
    assert single_positive_tasks.checked("adagc", {}) == OPTIONS["adagc"]
    with pytest.raises(ValueError, match=r"an takes no alpha; its options: none"):
        single_positive_tasks.checked("an", {"alpha": 0.2})
    with pytest.raises(ValueError, match=r"method='bce': expected one of an, an_ls"):
        single_positive_tasks.checked("bce", {})

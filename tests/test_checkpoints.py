"""Weights on disk: what is written comes back, under the name of its contents, and damage is said with its cure."""

import hashlib

import pytest
import torch
from torch import Generator, nn

from rsbook import checkpoints, models
from rsbook.checkpoints import load_weights, save_weights, weights_path


def network(seed=0, name="narrow_resnet", classes=4):
    return models.classifier(name, 3, classes, Generator().manual_seed(seed))


def same(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_weights_come_back_bit_for_bit_with_the_buffers(tmp_path):
    model, other = network(0), network(1)
    model.train()(torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(0)))  # moves the running means
    assert not same(model, other)
    load_weights(other, tmp_path, save_weights(model, tmp_path))
    assert same(model, other)
    assert other.bn1.num_batches_tracked == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_name_is_the_sha256_of_the_file_whatever_the_layout(tmp_path, layout):
    model = network().to(memory_format=layout)
    name = save_weights(model, tmp_path / "deeper")
    path = weights_path(tmp_path / "deeper", name)
    assert path == tmp_path / "deeper" / "weights" / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:32] == name
    assert save_weights(network(), tmp_path / "deeper") == name
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = network(1).to(memory_format=layout)
    load_weights(again, tmp_path / "deeper", name)
    assert same(model, again)
    assert all(p.is_contiguous(memory_format=layout) for p in again.parameters() if p.ndim == 4)


def test_other_weights_have_another_name_and_both_are_kept(tmp_path):
    first, second = save_weights(network(0), tmp_path), save_weights(network(1), tmp_path)
    assert first != second
    found = network(2)
    for seed, name in ((0, first), (1, second)):
        load_weights(found, tmp_path, name)
        assert same(found, network(seed))


def test_a_model_is_not_changed_by_being_saved(tmp_path):
    model = network()
    pointers = [p.data_ptr() for p in model.parameters()]
    save_weights(model, tmp_path)
    assert same(model, network())
    assert [p.data_ptr() for p in model.parameters()] == pointers
    assert all(p.requires_grad for p in model.parameters())


def test_weights_that_two_layers_share_are_written(tmp_path):
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, layer)
    name = save_weights(model, tmp_path)
    found = nn.Sequential(shared := nn.Linear(3, 3), shared)
    load_weights(found, tmp_path, name)
    assert same(found, model)


def test_missing_weights_are_said_with_their_cure(tmp_path):
    name = "0" * 32
    with pytest.raises(
        ValueError, match=rf"weights/{name}\.safetensors is missing: run what wrote these weights again"
    ):
        load_weights(network(), tmp_path, name)


@pytest.mark.parametrize("damage", ["empty", "truncated", "one bit"])
def test_damaged_weights_are_said_and_not_loaded(tmp_path, damage):
    name = save_weights(network(), tmp_path)
    path = weights_path(tmp_path, name)
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes({"empty": b"", "truncated": whole[:-99], "one bit": flipped}[damage])
    found = network(1)
    with pytest.raises(ValueError, match=rf"{name}\.safetensors is damaged .*delete it, and run what wrote it again"):
        load_weights(found, tmp_path, name)
    assert same(found, network(1))
    assert save_weights(network(), tmp_path) == name  # which is the cure
    load_weights(found, tmp_path, name)
    assert same(found, network())


@pytest.mark.parametrize("other", [{"classes": 5}, {"name": "resnet18"}])
def test_weights_of_another_network_are_an_error_that_names_the_file(tmp_path, other):
    name = save_weights(network(), tmp_path)
    with pytest.raises(
        ValueError, match=rf"(?s){name}\.safetensors holds the weights of another network: .*fc\.weight"
    ):
        load_weights(network(**other), tmp_path, name)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(network(), tmp_path)
    assert list((tmp_path / "weights").iterdir()) == []


def test_facts_and_tensors_come_back(tmp_path):
    facts = {"epoch": 3, "history": [{"loss": 0.5, "absent": None}], "name": "Größe"}
    tensors = {"model/a": torch.arange(6.0).view(2, 3), "best/step": torch.tensor(7)}
    checkpoints.write(tmp_path / "deeper" / "a.safetensors", facts, tensors)
    found, read = checkpoints.read(tmp_path / "deeper" / "a.safetensors")
    assert found == facts
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], value) for name, value in tensors.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_of_a_gpu_load_on_a_cpu_and_back(tmp_path):
    name = save_weights(network().cuda(), tmp_path)
    assert name == save_weights(network(), tmp_path)
    found = network(1).cuda()
    load_weights(found, tmp_path, name)
    assert same(found.cpu(), network())


def test_any_flipped_bit_of_a_checkpoint_is_found(tmp_path):
    path = tmp_path / "state.safetensors"
    checkpoints.write(path, {"epoch": 3}, {"model/a": torch.ones(3, 2), "best/b": torch.zeros(2, dtype=torch.int64)})
    whole = path.read_bytes()
    facts, tensors = checkpoints.read(path)
    assert (facts, sorted(tensors)) == ({"epoch": 3}, ["best/b", "model/a"])
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in range(header, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="its sha256 is not that of its contents"):
            checkpoints.read(path)
    path.write_bytes(whole.replace(b'\\"epoch\\": 3', b'\\"epoch\\": 4'))
    assert path.read_bytes() != whole
    with pytest.raises(ValueError, match="its sha256 is not that of its contents"):
        checkpoints.read(path)

import pytest
import torch

from rsbook import devices


def test_cuda_where_there_is_none_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU here; use device='auto' or 'cpu'"):
        devices.resolve_device("cuda")
    assert devices.resolve_device("auto") == devices.resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.resolve_device("auto") == devices.resolve_device("cuda") == "cuda"

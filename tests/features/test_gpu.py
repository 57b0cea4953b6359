from unittest.mock import Mock

import pytest
import torch

from captioning.features.gpu import copy_to_host, full_float32


def test_a_copy_is_waited_for_on_the_gpu_that_the_tensor_is_on(monkeypatch):
    event = Mock()
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    tensor = Mock(spec=torch.Tensor, is_cuda=True, device="cuda:1")
    tensor.to.return_value = torch.ones(2)
    get = copy_to_host(tensor)
    tensor.to.assert_called_once_with("cpu", non_blocking=True)
    event.record.assert_called_once_with("stream of cuda:1")
    event.synchronize.assert_not_called()
    assert torch.equal(get(), torch.ones(2))
    event.synchronize.assert_called_once_with()


def test_on_a_cpu_there_is_nothing_to_copy():
    tensor = torch.ones(2)
    assert copy_to_host(tensor)() is tensor


def test_full_float32_ends_with_its_block():
    torch.set_float32_matmul_precision("high")
    with pytest.raises(KeyError), full_float32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
        raise KeyError
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")

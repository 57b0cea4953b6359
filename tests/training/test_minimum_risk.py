from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.features.batches import CaptionDataset
from captioning.metrics.reward import CiderReward
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.search.beam import beam_search
from captioning.training.minimum_risk import RiskModule, expected_reward

TOKENS = torch.tensor([[[5, 6, EOS], [7, EOS, PAD]], [[8, EOS, PAD], [5, EOS, PAD]]])
REWARDS = torch.tensor([[1.0, 3.0], [0.0, 2.0]])


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return LSTMDecoder(9, 4, embed_dim=8, hidden_dim=8).eval()


def log_probability(decoder, features, caption):
    """Word by word."""
    (state, token), total = (decoder.begin(features[None]), torch.tensor([BOS])), 0.0
    for target in caption:
        logits, state = decoder.step(token, state)
        total += logits.log_softmax(-1)[0, target]
        token = target[None]
        if target == EOS:
            return total


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0])
def test_captions_are_weighted_by_their_probability(decoder, sharpness):
    features, expected = torch.randn(2, 4), []
    for image, captions, rewards in zip(features, TOKENS, REWARDS, strict=True):
        log_probs = torch.stack([log_probability(decoder, image, caption) for caption in captions])
        expected.append(((sharpness * log_probs).softmax(0) * rewards).sum())
    ours = expected_reward(decoder, features, TOKENS, REWARDS, sharpness)
    expected = torch.stack(expected)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    weights = list(decoder.parameters())
    grads, expected = (torch.autograd.grad(value.sum(), weights) for value in (ours, expected))
    torch.testing.assert_close(grads, expected, atol=1e-5, rtol=0)


def make_module(decoder, reward=CiderReward, **options):
    """Make a module in the last of four epochs."""
    options = {"risk_epochs": 2, "warmup": 0.0} | options
    search = partial(beam_search, width=2)
    module = RiskModule(decoder, {"vocabulary": ["a"]}, search, reward, **options)
    module._trainer = SimpleNamespace(max_epochs=4, current_epoch=3, global_rank=0, ckpt_path=None)
    return module


def test_each_part_has_its_own_learning_rate(decoder):
    module = make_module(decoder, learning_rate=1e-2, risk_learning_rate=1e-3)
    rates = [module.lr_factor(step, 40) for step in range(41)]
    assert rates[0] == 1.0
    assert rates[19] < 0.01
    assert rates[20] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.05)
    assert rates[40] == 0


@pytest.mark.parametrize("epochs", [0, 4])
def test_both_parts_need_an_epoch(decoder, epochs):
    with pytest.raises(UserError, match=r"training\.risk_epochs"):
        make_module(decoder, risk_epochs=epochs).on_fit_start()


def reward_of_ids(rows, references):
    """Any reward does that differs by caption and image."""
    return lambda rows, tokens: np.sin(tokens.sum(-1) * (2.0 + rows))


def risk_step(captions):
    """Return gradients, logged reward and its weight of one step on these of seven captions."""
    torch.manual_seed(0)
    module = make_module(MergeDecoder(9, 4, hidden_dim=8, dropout=0.0), reward_of_ids)
    features = torch.randn(4, 4)
    images = [0, 0, 1, 1, 2, 3, 3]
    dataset = CaptionDataset(None, images, [[BOS, 5, EOS]] * len(images))
    module._trainer.train_dataloader = SimpleNamespace(dataset=dataset)
    logged = []
    module.log = lambda key, value, batch_size, **_: logged.extend((value, batch_size))
    module.on_train_start()
    batch = dataset[np.array(captions)]
    module.training_step(batch._replace(features=features[batch.store_rows])).backward()
    grads = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return grads, *logged


def one_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", None, 2, rank)
    torch.save(risk_step([[0, 2, 4, 6], [1, 3, 5]][rank]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_learn_from_each_image_as_one_process_does(tmp_path):
    """Where three of the four images are in both, and the processes have unlike numbers of them."""
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    grads, reward, images = risk_step(range(7))
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert images == sum(count for _, _, count in results) == 4
    torch.testing.assert_close(sum(value * count for _, value, count in results) / 4, reward)
    for expected, *parts in zip(grads, *(part for part, _, _ in results), strict=True):
        torch.testing.assert_close(sum(parts) / 2, expected)

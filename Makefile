# `make help` lists the targets. PYTHON chooses the interpreter that .venv is made from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Set unless .venv was made here, or where it links to: in a checkout that was moved or copied its
# scripts start, and Python imports, what is in the old folder. The setup mends that in place.
MOVED := $(shell grep -qsF -e " $(CURDIR)/.venv" -e " $$(realpath .venv)" .venv/pyvenv.cfg || echo moved)
EXTRAS := offline demo heic tune joblib slurm ray dev

.DEFAULT_GOAL := help
.PHONY: $(MOVED) help setup demo data train pretrained test bench gpu lint format lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml $(MOVED)
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed; type make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	@grep -slI '\.venv/bin/python' $(BIN)/* | xargs -r sed -i "1,2s|/.*/\.venv/bin/python|$$(realpath .venv)/bin/python|"
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP)  ## make .venv with the locked dependencies, hashes checked, or mend a moved one

demo: $(STAMP)  ## draw scenes, encode, train; caption photographs: three minutes on two cores
	$(BIN)/python -m captioning.train experiment=demo
	$(BIN)/python -m captioning.caption photographs out=outputs/photographs.png overwrite=true

data: $(STAMP)  ## fetch Flickr8k, ResNet50's weights and BERT (a network is needed)
	$(BIN)/python -m captioning.download flickr8k data/flickr8k
	$(BIN)/python -m captioning.download resnet50
	$(BIN)/python -m captioning.download bert_base

train: $(STAMP)  ## train on Flickr8k (after make data); options go in ARGS="trainer.gpus=1"
	$(BIN)/python -m captioning.train model=lstm $(ARGS)

PRETRAINED := outputs/pretrained

pretrained: $(STAMP)  ## make the captioner in the package anew, from FLICKR8K=FOLDER: half an hour
	$(BIN)/python -m captioning.train experiment=flickr8k_best text_encoder=minilm name=pretrained \
		trainer.gpus=0 trainer.check_val_every_n_epoch=3 hydra.run.dir=$(PRETRAINED)
	rm -rf $(PRETRAINED)/int8 captioning/pretrained
	$(BIN)/python -m captioning.export $(PRETRAINED)/best.ckpt format=safetensors dtype=int8 \
		out=$(PRETRAINED)/int8
	$(BIN)/python -m captioning.evaluate 'ckpt=[$(PRETRAINED)/best.ckpt,$(PRETRAINED)/int8]' split=dev \
		data=flickr8k text_encoder=minilm hydra.run.dir=$(PRETRAINED)/scores
	$(BIN)/python -m captioning.export $(PRETRAINED)/best.ckpt format=safetensors dtype=int8 \
		out=captioning/pretrained scores=$(PRETRAINED)/scores/scores.json
	cp $(PRETRAINED)/scores/scores.json docs/results/pretrained.json
	$(BIN)/python -m captioning.evaluate default split=dev data=flickr8k text_encoder=minilm \
		confidence=true 'also=[fit]' hydra.run.dir=$(PRETRAINED)/confidence
	cp $(PRETRAINED)/confidence/scores.json docs/results/confidence.json
	$(BIN)/python -m captioning.caption photographs out=docs/photographs.png overwrite=true

test: $(STAMP)  ## the whole test suite, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

bench: $(STAMP)  ## time everything beside the baseline; BENCH=quick: less of it
	$(BIN)/python -m benchmarks $(BENCH)

gpu:  ## tests and benchmarks on a GPU; needs no .venv where python3 has its own torch
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(ARGS)

lint: $(STAMP)  ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(STAMP)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP)  ## make requirements.lock again from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
		--no-header $(EXTRAS:%=--extra %) pyproject.toml -o requirements.lock

clean:  ## remove .venv, caches and drawn data; runs stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis outputs/data outputs/features
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

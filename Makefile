SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Variables of `make demo`, `make sql` and `make bench`.
DATA ?=
WEIGHTS ?= imagenet
OUT ?= demo
WAREHOUSE ?= $(OUT)/warehouse
TESTS ?= tests
SHARD ?= 1/1
# Two workers, each with a JVM of its own; the tests on a cluster are all of one of them.
PYTEST = $(BIN)/python -m pytest -n 2 --no-loadscope-reorder --junitxml build/junit-$@.xml
# Texts for readers.
PROSE = README.md CONTRIBUTING.md SECURITY.md $(wildcard docs/*.md docs/*/*.md results/*.md)
# pragma: allowlist nextline secret
DETECT_SECRETS := detect-secrets==1.5.0 --hash=sha256:e24e7b9b5a35048c313e983f76c4bd09dad89f045ff059e354f9943bf45aa060
# The WAREHOUSE of the command line; the one of the demo is too small for measurements.
TRAINED_ON := $(if $(filter command,$(origin WAREHOUSE)),$(WAREHOUSE))

.PHONY: help install lock demo results hostile fuzz faults test test-unit test-all docs docs-serve lint secrets bench sql package viewer-dist hadoop-up hadoop-down hadoop-status clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(READY) ## Make .venv with the exact versions of requirements.lock, the Iceberg jar, class data

$(VENV)/.libraries: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	@java -version 2>&1 | grep -qE 'version "(1[7-9]|[2-9][0-9])' || { echo 'error: Java 17 or 21 is needed on the PATH (Debian: apt-get install openjdk-17-jre-headless)' >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	touch $@

$(READY): $(VENV)/.libraries Makefile pyproject.toml setup.py conf/spark-defaults.conf conf/log4j2.properties hadoop/jars.lock hadoop/class_archive.py
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python hadoop/jars.py iceberg pyspark
	spark=$$($(BIN)/python -c 'import pyspark, pathlib; print(pathlib.Path(pyspark.__file__).parent)'); \
	  mkdir -p "$$spark/conf" && cp conf/spark-defaults.conf conf/log4j2.properties "$$spark/conf/"
	@# pyspark's scripts take the Spark and Python that the shell's variables name.
	$(BIN)/python -c 'from eagle_spark.spark.environment import write_wrappers; write_wrappers("$(BIN)")'
	@echo 'making the class-data archive of Spark: a minute' >&2
	$(BIN)/python hadoop/class_archive.py
	touch $@

lock: ## Resolve requirements.lock anew from pyproject.toml
	$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile --universal --python-version 3.10 --extra dev --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	  --quiet --upgrade -o requirements.lock pyproject.toml

demo: install ## The whole path on this machine; DATA=DIR for a real set, WEIGHTS=PATH|none, OUT=DIR
	DATA='$(DATA)' WEIGHTS='$(WEIGHTS)' OUT='$(OUT)' bash submit/demo.sh

results: install ## results/ anew, from a real run; MASKS=DIR LARGE=DIR, WEIGHTS=PATH, WORK=DIR
	MASKS='$(MASKS)' LARGE='$(LARGE)' WEIGHTS='$(WEIGHTS)' WORK='$(or $(WORK),build/results)' bash submit/results.sh

hostile: install ## What becomes of hostile inputs, as results/hostile.md; MODEL=DIR, any sound model
	$(BIN)/python -m tests.hostile.hostile --model '$(MODEL)' --out results/hostile.md

fuzz: install ## Readers of images, workbooks and archives under a fuzzer; SECONDS_EACH=300
	@[ -e build/fuzz/.ready ] || { $(PYTHON) -m venv --clear build/fuzz && build/fuzz/bin/pip install -q atheris==3.0.0 && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(build/fuzz/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth && \
	  touch build/fuzz/.ready; }
	cd build/fuzz && for target in image dicom workbook sheet zip tar; do echo "== $$target"; \
	  PYTHONPATH=$(CURDIR) bin/python ../../tests/hostile/fuzz.py $$target -max_total_time=$(or $(SECONDS_EACH),300) 2>&1 | tail -n 12; done

faults: install ## Every job struck by every fault, as results/faults.md; takes hours; ONLY='score/*/*' for some
	$(BIN)/python -m tests.chaos.matrix --work '$(or $(WORK),build/faults)' \
	  --out results/faults.md --only '$(or $(ONLY),*)'

test-unit: install ## Tests without a JVM and TensorFlow, in a minute
	$(PYTEST) --tier unit $(TESTS)

test: install ## What every commit has to pass, in 25 minutes; TESTS='tests/unit -k bomb' for some
	$(PYTEST) --tier test $(TESTS)

test-all: install ## The tests that `make test` leaves out; SHARD=2/4 for a part of them
	$(PYTEST) --tier extended --shard $(SHARD) $(TESTS)

docs: install ## The reference pages from the code, and the site of the documentation in build/site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: install ## Show the documentation on 127.0.0.1:8000 while its pages change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

lint: install ## Style, types, the layers of the package, and the language of the pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell $(PROSE)
	$(BIN)/proselint check --config .proselintrc.json $(PROSE)

# Its libraries come from .venv, which the lock has by digest. It asks nobody whether what it finds is
# real. Tests make up the password "secret".
secrets: install ## Look for passwords and keys in what git tracks
	@[ "$$(cat build/secrets/.ready 2>/dev/null)" = '$(DETECT_SECRETS)' ] || { $(PYTHON) -m venv --clear build/secrets && \
	  build/secrets/bin/pip install -q --no-deps --require-hashes -r <(echo '$(DETECT_SECRETS)') && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(build/secrets/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth && \
	  echo '$(DETECT_SECRETS)' > build/secrets/.ready; }
	git ls-files -z | xargs -0 build/secrets/bin/detect-secrets-hook --no-verify --exclude-secrets '^secret$$'

bench: install ## Compare preprocess with a bare loop, DATA=DIR; train with the original, WAREHOUSE=DIR WEIGHTS=FILE
	$(if $(DATA),$(BIN)/python -m benchmarks.preprocess --data '$(DATA)')
	$(if $(TRAINED_ON),$(BIN)/python -m benchmarks.train --warehouse '$(WAREHOUSE)' --weights '$(WEIGHTS)')
	@$(if $(DATA)$(TRAINED_ON),,echo 'error: give DATA=DIR, or WAREHOUSE=DIR, or both' >&2; exit 2)

sql: install ## Open spark-sql on the tables; WAREHOUSE=URI
	bash conf/sql/open.sh '$(WAREHOUSE)'

package: install ## Files for a cluster, in dist/: wheel, environments for score and train, spark-jars.zip
	$(BIN)/python hadoop/package.py dist

viewer-dist: install ## The window for machines without Python, in dist/eagle-view
	$(BIN)/pyinstaller --noconfirm --log-level WARN --distpath dist --workpath build/viewer conf/viewer.spec
	@du -sh dist/eagle-view

hadoop-up: install ## Start a real HDFS, YARN and history server on this machine
	$(BIN)/python hadoop/cluster.py up

hadoop-down: ## Stop exactly those processes
	$(BIN)/python hadoop/cluster.py down

hadoop-status: ## Show them, and the addresses of their web pages
	@$(BIN)/python hadoop/cluster.py status

clean: ## Remove everything that make made
	rm -rf $(VENV) build dist *.egg-info demo spark-warehouse metastore_db derby.log .mypy_cache .ruff_cache .pytest_cache .hypothesis

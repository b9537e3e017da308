# Recipes of CONTRIBUTING.md, one command each; `tests/tests/where_is.rs` compares them. `just --list` shows all.

# Three regions of three nodes, with WAN latency
dev *ARGS:
    cargo run -- dev {{ARGS}}

# All tests
test:
    cargo test --workspace

# Lints, as in CI
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Formats the code
fmt:
    cargo fmt --all

# Everything that must hold: format, lints, tests, a short `dev --check`
ci *STEPS:
    .ci/run {{STEPS}}

# Acceptance steps on nine real nodes, each with its budget
check *STEPS:
    cargo run -- dev --check {{STEPS}}

# Tests of one crate: just crate state
crate NAME:
    cargo test -p stead-{{NAME}}

# Real nodes: bad input, health, drain
processes:
    cargo test -p stead-tests --test processes

# Commands, files and lines that documents name
docs:
    cargo test -p stead-tests --test readme --test where_is

# Files of deploy/: what they say exists, and nodes start by it
deploy:
    cargo test -p stead-tests --test deploy

# Programs of proto/README.md, where their libraries are installed
clients:
    cargo test -p stead-tests --test clients

# Nine nodes in a seeded simulation with faults
simulation:
    cargo test -p stead-tests --test simulation

# Many seeds of the simulation: just sweep 1..200
sweep SEEDS="1..50":
    STEAD_SEEDS={{SEEDS}} cargo test -p stead-tests --test simulation sweep -- --include-ignored --nocapture

# Mutation testing with planted bugs: just planted log-not-synced
planted *NAMES:
    tests/planted.sh {{NAMES}}

# Power cuts under real nodes, for so many minutes
powercut MINUTES="60":
    tests/powercut.sh --minutes {{MINUTES}}

# Stead beside etcd, Redis, PostgreSQL and others: just bench --quick
bench *ARGUMENTS:
    benches/run.sh {{ARGUMENTS}}

# Generated files, after a change of a proto or an error
generate:
    UPDATE_GENERATED=1 cargo test -p stead-api --test generated --test errors

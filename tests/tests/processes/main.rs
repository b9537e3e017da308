//! Tests with real processes: bad input, health, drain and exit, limits, watches, recipes, the fixture for services.
//!
//! Each test has the machine for itself (`process::exclusive_lock`), however many of them cargo starts together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod bulk_moves;
mod cancel;
mod data;
mod dev_json;
mod directories;
mod directory_recovery;
mod directory_watchers;
mod ended;
mod failback;
mod fixture;
mod forks;
mod full_disk;
mod health;
mod leaders;
mod limits;
mod moves;
mod promotions;
mod recipes;
mod remote;
mod repeated;
mod requests;
mod roles;
mod rows;
mod scopes;
mod settings;
mod stop;
mod tls;
mod tokens;
mod topology;
mod watch;

//! Files of `deploy/`: what they say to the program exists and fits, and nodes start by exactly what they say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compose;
mod container;
mod files;
mod kubernetes;
mod nodes;
mod schemas;
mod systemd;

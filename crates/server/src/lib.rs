//! A node of Stead: services, router, admission, health, metrics and supervision.

mod admin_peers;
mod admission;
pub mod config;
mod connections;
mod directory;
mod directory_maintenance;
pub mod environment;
mod health;
mod host;
mod http;
mod latency_metrics;
mod lease;
mod lease_messages;
mod lease_tasks;
mod lease_transfer;
pub mod listener;
mod metrics;
mod metrics_format;
pub mod node;
pub mod panics;
mod preface;
mod process_metrics;
mod promotion_metrics;
mod promotion_upkeep;
mod readiness_metrics;
mod remote_metrics;
pub mod resources;
mod response;
mod router;
mod seed_metrics;
mod services;
mod storage;
pub mod supervisor;
#[cfg(test)]
mod tenant_fixture;
mod tenant_loads;
mod watch;

//! A node of Stead: services, router, health, metrics, supervision.

mod admission;
mod bootstrap;
pub mod config;
mod directory;
pub mod environment;
mod health;
mod host;
mod http;
pub mod listener;
mod metrics;
mod neighbours;
pub mod node;
pub mod panics;
mod reply;
mod router;
mod rows;
mod services;
pub mod supervisor;
mod watch;

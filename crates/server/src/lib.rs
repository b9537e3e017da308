//! A node of Stead: services, router, health, metrics, supervision.

pub mod config;
pub mod environment;
pub mod listener;
pub mod supervisor;

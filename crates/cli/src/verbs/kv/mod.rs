//! `stead kv`.

mod append;
mod delete;
mod delete_range;
mod get;
mod increment;
mod put;
mod read;
mod scan;
mod txn;
mod value;
mod watch;
mod write;

use std::ffi::OsString;

use clap::{
    Subcommand,
    builder::{OsStringValueParser, TypedValueParser},
};

use crate::{args::Target, exit::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print a key's value as it is, or several keys as a table
    Get(get::Get),
    /// Write a key
    Put(put::Put),
    /// Remove a key
    Delete(delete::Delete),
    /// Add to the number that a key holds
    Increment(increment::Increment),
    /// Add bytes behind those that a key holds
    Append(append::Append),
    /// Remove the keys of a range or prefix
    DeleteRange(delete_range::DeleteRange),
    /// Do one of two lists of operations, whole or not at all
    Txn(txn::Txn),
    /// Print changes as they come, one JSON object a line
    Watch(watch::Watch),
    /// Show keys in their order
    Scan(scan::Scan),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::Get(verb) => verb.run(target).await,
            Self::Put(verb) => verb.run(target).await,
            Self::Delete(verb) => verb.run(target).await,
            Self::Increment(verb) => verb.run(target).await,
            Self::Append(verb) => verb.run(target).await,
            Self::DeleteRange(verb) => verb.run(target).await,
            Self::Txn(verb) => verb.run(target).await,
            Self::Watch(verb) => verb.run(target).await,
            Self::Scan(verb) => verb.run(target).await,
        }
    }
}

/// Reads a key, a prefix or a bound where an empty one would stand for every key.
fn named() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|text| {
        if text.is_empty() {
            Err("it has at least one byte")
        } else {
            Ok(text)
        }
    })
}

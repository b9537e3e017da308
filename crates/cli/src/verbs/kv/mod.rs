//! `stead kv`.

mod append;
mod delete;
mod delete_range;
mod export;
mod get;
mod import;
mod increment;
mod put;
mod read;
mod receipts;
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

pub(super) use self::{
    export::line as item_line,
    import::{Rows, write_rows},
    read::item,
};
use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print a key's value as it is, or several keys as a table
    Get(get::Get),
    /// Write a key
    Put(put::Put),
    /// Delete a key
    Delete(delete::Delete),
    /// Increment the number of a key
    Increment(increment::Increment),
    /// Append bytes to a value
    Append(append::Append),
    /// Delete the keys of a range or prefix
    DeleteRange(delete_range::DeleteRange),
    /// Execute one of two lists of operations atomically
    Txn(txn::Txn),
    /// Print changes as they happen, one JSON object a line
    Watch(watch::Watch),
    /// Show keys in their order
    Scan(scan::Scan),
    /// Write the rows of a CSV or JSON lines file
    Import(import::Import),
    /// Write the keys of a tenant at one revision as JSON lines
    Export(export::Export),
    /// Show which acknowledged revisions have survived, were cut or were written again
    Receipts(receipts::ReceiptsVerb),
}

impl Verb {
    /// Tells whether an interrupt is the verb's own to handle.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Import(_))
    }

    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
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
            Self::Import(verb) => verb.run(target).await,
            Self::Export(verb) => verb.run(target).await,
            Self::Receipts(verb) => verb.run(target).await,
        }
    }
}

/// Parses a key, a prefix or a bound that must not be empty, because an empty one would stand for every key.
fn non_empty() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|text| {
        if text.is_empty() {
            Err("it has at least one byte")
        } else {
            Ok(text)
        }
    })
}

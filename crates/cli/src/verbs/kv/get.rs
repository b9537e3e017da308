//! `stead kv get`: the bytes of one value as they are, or a table of several keys at one revision.

use std::{ffi::OsString, io::IsTerminal, os::unix::ffi::OsStrExt};

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use stead_client::{Error, ErrorKind, Header, Item};

use super::read::{self, ReadArgs};
use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Tenant of the keys
    tenant: String,
    /// The key, as it is; several keys are read at one revision and shown as a table
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    read: ReadArgs,
    /// Print the source of the response on standard error
    #[arg(short, long)]
    verbose: bool,
}

impl Get {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
        let read = self.read.read()?;
        let keys: Vec<Bytes> = self
            .keys
            .iter()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()))
            .collect();
        let (header, items) = match keys.as_slice() {
            [key] => {
                let got = tenant.get_with(key.clone(), &read).await?;
                (got.header, vec![got.item])
            }
            _ => {
                let batch = tenant.batch_get(keys.clone(), &read).await?;
                (batch.header, batch.items)
            }
        };
        self.read.check(&header)?;
        read::print_source(&self.tenant, &header, self.verbose);
        show(target.output, &header, &items)?;
        let missing = keys.iter().zip(&items).filter(|(_, item)| item.is_none());
        let missing: Vec<String> = missing.map(|(key, _)| output::display_bytes(key, 80)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("tenant {} has no key {}", self.tenant, missing.join(" and no key "));
        Err(Error::new(ErrorKind::KeyNotFound, message).into())
    }
}

fn show(format: Output, header: &Header, items: &[Option<Item>]) -> Result<(), CommandError> {
    match (format, items) {
        (Output::Json, [item]) => {
            let item = item.as_ref().map(read::item);
            output::json(&json!({ "header": read::header(header), "item": item }))
        }
        (Output::Json, items) => {
            let items: Vec<_> = items.iter().map(|item| item.as_ref().map(read::item)).collect();
            output::json(&json!({ "header": read::header(header), "items": items }))
        }
        (Output::Table | Output::Wide, [None]) => Ok(()),
        (Output::Table | Output::Wide, [Some(item)]) => {
            output::bytes(&item.value)?;
            if std::io::stdout().is_terminal() {
                output::line("")?;
            }
            Ok(())
        }
        (Output::Table | Output::Wide, items) => {
            let mut table = read::table();
            for item in items.iter().flatten() {
                read::push(&mut table, item);
            }
            table.print(format)
        }
    }
}

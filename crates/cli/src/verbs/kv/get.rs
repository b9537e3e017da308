//! `stead kv get`: the value's bytes as they are.

use std::{ffi::OsString, io::IsTerminal, os::unix::ffi::OsStringExt};

use clap::Args;
use serde_json::json;

use super::read::{self, ReadArgs};
use crate::{
    args::Target,
    context,
    exit::{Code, Failure},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Whose key
    tenant: String,
    /// The key, as it is
    key: OsString,
    #[command(flatten)]
    read: ReadArgs,
    /// Say on standard error where the answer comes from
    #[arg(short, long)]
    verbose: bool,
}

impl Get {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
        let key = self.key.into_vec();
        let missing = format!("tenant {} has no key {}", self.tenant, output::shown(&key, 80));
        let got = tenant.get_with(key, &self.read.read()?).await?;
        if self.verbose {
            eprintln!(
                "{}@{} from {}",
                self.tenant,
                got.header.revision,
                read::source(&got.header)
            );
        }
        let absent = got.item.is_none();
        match (target.output, got.item) {
            (Output::Json, item) => {
                let item = item.as_ref().map(read::item);
                output::json(&json!({ "header": read::header(&got.header), "item": item }))?;
            }
            (Output::Table | Output::Wide, Some(item)) => {
                output::bytes(&item.value)?;
                if std::io::stdout().is_terminal() {
                    output::line("")?;
                }
            }
            (Output::Table | Output::Wide, None) => {}
        }
        if absent {
            Err(Failure::new(Code::NotFound, missing))
        } else {
            Ok(())
        }
    }
}

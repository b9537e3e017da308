//! Options of writes.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use clap::Args;
use stead_client::{
    Condition, Consistency, Durability, IdempotencyKey, Operand, ReadOptions, Relation, Revision, Tenant, WriteOptions,
};

use crate::{args::Target, context, exit::CommandError};

/// Longest time for learning the tenant's time.
const TIME_WAIT: Duration = Duration::from_secs(1);

/// Connects to a tenant that is to be written to, and learns its time from the nearest copy: a key that is stamped with
/// none could be asked about only as long as the tenant has forgotten no outcome.
pub(super) async fn tenant(target: &Target, name: &str) -> Result<Tenant, CommandError> {
    let tenant = context::connect(target).await?.tenant(name)?;
    let read = ReadOptions {
        timeout: Some(TIME_WAIT),
        ..ReadOptions::at(Consistency::Local)
    };
    // Whatever is wrong, the write says it better.
    let _ = tenant.get_with("time", &read).await;
    Ok(tenant)
}

/// Flags of a write.
#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// Only if the key does not exist
    #[arg(long, group = "condition")]
    if_absent: bool,
    /// Only if the key exists
    #[arg(long, group = "condition")]
    if_exists: bool,
    /// Only if this is the revision of the key's last change, such as 1.42
    #[arg(long, value_name = "REVISION", group = "condition")]
    if_revision: Option<Revision>,
    /// Only if this revision created the key, such as 1.42
    #[arg(long, value_name = "REVISION", group = "condition")]
    if_created: Option<Revision>,
    /// Only if the key has had this many changes since it was created
    #[arg(long, value_name = "COUNT", group = "condition")]
    if_version: Option<u64>,
    /// Only if the key has exactly this value
    #[arg(long, value_name = "VALUE", group = "condition")]
    if_value: Option<OsString>,
    /// Show the key as it was before
    #[arg(long)]
    previous: bool,
    /// Only acknowledge when another region has the write as well
    #[arg(long)]
    remote: bool,
    /// Print the source of the response on standard error
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// The key that a failed command showed, to ask for its outcome; the write is executed once at most
    #[arg(long, value_name = "CLIENT/SEQUENCE/MS")]
    idempotency_key: Option<IdempotencyKey>,
}

impl WriteArgs {
    pub(super) fn write(&self) -> WriteOptions {
        let equal = |operand| Condition::Compared(Relation::Equal, operand);
        let absent = self.if_absent.then_some(Condition::Absent);
        let exists = self.if_exists.then_some(Condition::Exists);
        let modified = self.if_revision.map(Operand::Modified);
        let created = self.if_created.map(Operand::Created);
        let version = self.if_version.map(Operand::Version);
        let value = self.if_value.clone();
        let value = value.map(|value| Operand::Value(value.into_vec().into()));
        let compared = modified.or(created).or(version).or(value).map(equal);
        WriteOptions {
            precondition: absent.or(exists).or(compared),
            previous: self.previous,
            durability: self.remote.then_some(Durability::Remote),
            timeout: None,
            idempotency_key: self.idempotency_key,
        }
    }
}

//! `stead tenant`.

mod create;
mod delete;
mod get;
mod list;
mod shown;
mod update;

use clap::{Subcommand, ValueEnum};
use stead_client::{Durability, LimitUnit, TenantInfo, TenantLimit, TenantLimits};

use crate::{args::Target, exit::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a tenant
    Create(create::Create),
    /// Show a tenant
    Get(get::Get),
    /// Show tenants
    List(list::List),
    /// Change a tenant; what is not named stays
    Update(update::Update),
    /// Disable a tenant, or erase a disabled one everywhere
    Delete(delete::Delete),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::Create(verb) => verb.run(target).await,
            Self::Get(verb) => verb.run(target).await,
            Self::List(verb) => verb.run(target).await,
            Self::Update(verb) => verb.run(target).await,
            Self::Delete(verb) => verb.run(target).await,
        }
    }
}

/// Says how to find out whether a change was made.
fn look(name: &str) -> String {
    format!("`stead tenant get {name}` shows whether it was done")
}

/// Shows what a tenant has become, or would become.
fn changed(tenant: TenantInfo, dry_run: bool, output: Output) -> Result<(), Failure> {
    shown::sheet(&[tenant]).print_one(output)?;
    // A program knows what it has asked for, and expects failures there.
    if dry_run && output != Output::Json {
        eprintln!("dry run: so it would be, and nothing was changed");
    }
    Ok(())
}

/// When a tenant's writes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DurabilityArg {
    /// Committed by a majority of the home's nodes
    Region,
    /// And applied in another region
    Remote,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Region => Self::Region,
            DurabilityArg::Remote => Self::Remote,
        }
    }
}

/// Reads `name=value`; an age as `30m`, a size as `64MiB`, `default` where a limit is to be the default again.
fn limit(text: &str) -> Result<(TenantLimit, Option<u64>), String> {
    let (name, value) = text.split_once('=').ok_or("a limit is written name=value")?;
    let limit: TenantLimit = name.parse().map_err(|why| format!("{why}"))?;
    if value == "default" {
        return Ok((limit, None));
    }
    let number = match limit.unit() {
        LimitUnit::Milliseconds => humantime::parse_duration(value)
            .ok()
            .and_then(|age| u64::try_from(age.as_millis()).ok())
            .ok_or_else(|| format!("{value:?} is no age such as 30m or 36h")),
        LimitUnit::Bytes => bytes(value),
        LimitUnit::Count => value.parse().map_err(|_| format!("{value:?} is no whole number")),
    }?;
    TenantLimits::default()
        .set(limit, number)
        .map_err(|why| why.to_string())?;
    Ok((limit, Some(number)))
}

/// Reads a number of bytes, such as `500000`, `64KiB`, `10MiB` or `2GiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is no number of bytes such as 500000, 64KiB or 2GiB"))
}

/// Reads `name=value`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is written name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_in_the_unit_that_people_use() {
        for (text, read) in [
            (
                "operations-per-second=500",
                (TenantLimit::OperationsPerSecond, Some(500)),
            ),
            ("bytes_per_second=64KiB", (TenantLimit::BytesPerSecond, Some(64 << 10))),
            ("stored-bytes=2GiB", (TenantLimit::StoredBytes, Some(2 << 30))),
            ("history-age=36h", (TenantLimit::HistoryAge, Some(36 * 3_600_000))),
            ("keys=default", (TenantLimit::Keys, None)),
        ] {
            assert_eq!(limit(text), Ok(read), "{text}");
        }
        for (text, words) in [
            ("keys", "name=value"),
            ("size=5", "no limit \"size\", but operations_per_second"),
            ("keys=many", "no whole number"),
            ("stored-bytes=2GB", "such as 500000, 64KiB or 2GiB"),
            ("history-age=5", "such as 30m or 36h"),
            ("in-flight=0", "in_flight is at least 1"),
        ] {
            let refused = limit(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}

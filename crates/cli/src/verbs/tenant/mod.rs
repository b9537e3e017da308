//! `stead tenant`.

mod create;
mod delete;
mod display;
mod get;
mod isolate;
mod list;
mod move_home;
mod move_many;
mod on_region_loss;
mod promote;
pub(super) mod residency;
mod top;
mod update;
mod verify;
mod where_is;

use clap::{Subcommand, ValueEnum};
use stead_client::{Durability, LimitUnit, OnLeaseLoss, TenantInfo, TenantLimit, TenantLimits};

use crate::{args::Target, exit::CommandError, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a tenant
    Create(create::Create),
    /// Show a tenant
    Get(get::Get),
    /// Show tenants
    List(list::List),
    /// Change a tenant; omitted settings stay
    Update(update::Update),
    /// Disable a tenant, or erase a disabled one everywhere
    Delete(delete::Delete),
    /// Move the home of a tenant, or of many, to another region or group
    Move(move_home::Move),
    /// Give tenants whose home is lost another one, from the copies that are left
    Promote(promote::Promote),
    /// Set what becomes of a tenant when its home region is lost: an alert, or a promotion after a time
    OnRegionLoss(on_region_loss::OnRegionLossVerb),
    /// Move a tenant to another group of its home's region, away from its neighbours
    Isolate(isolate::Isolate),
    /// Show the tenants that load the nodes most, with their hottest keys
    Top(top::Top),
    /// Show what was sent of a tenant to which region, when and under which version of its record, and where it was erased
    Residency(residency::Residency),
    /// Show where a tenant is: its home, its replicas, a move in flight
    Where(where_is::Where),
    /// Compare the copies of a tenant, on all nodes, with the one of its home
    Verify(verify::Verify),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Create(verb) => verb.run(target).await,
            Self::Get(verb) => verb.run(target).await,
            Self::List(verb) => verb.run(target).await,
            Self::Update(verb) => verb.run(target).await,
            Self::Delete(verb) => verb.run(target).await,
            Self::Move(verb) => verb.run(target).await,
            Self::Promote(verb) => verb.run(target).await,
            Self::OnRegionLoss(verb) => verb.run(target).await,
            Self::Isolate(verb) => verb.run(target).await,
            Self::Top(verb) => verb.run(target).await,
            Self::Residency(verb) => verb.run(target).await,
            Self::Where(verb) => verb.run(target).await,
            Self::Verify(verb) => verb.run(target).await,
        }
    }

    /// Tells whether the verb handles Ctrl-C itself, because what it has begun goes on.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Move(_) | Self::Promote(_) | Self::Isolate(_))
    }
}

/// Returns a hint about how to look up whether a change was made.
fn verify_hint(name: &str) -> String {
    format!("`stead tenant get {name}` shows whether it was done")
}

/// Prints a tenant after a change, or as it would be.
fn print_tenant(tenant: TenantInfo, dry_run: bool, output: Output) -> Result<(), CommandError> {
    display::table(&[tenant]).print_one(output)?;
    // A program knows that it asked for a dry run, and expects only errors on standard error.
    if dry_run && output != Output::Json {
        eprintln!("dry run: this would be the result; nothing was changed");
    }
    Ok(())
}

/// Durability at which a tenant's writes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DurabilityArg {
    /// Committed by a majority of the home's nodes
    Region,
    /// Committed, and applied in another region
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

/// Behaviour of a tenant's home without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnLeaseLossArg {
    /// Stop: no two regions ever serve the tenant
    Stop,
    /// Go on, with marked answers: a promotion of another region needs an operator's word that this one is down
    Continue,
}

impl From<OnLeaseLossArg> for OnLeaseLoss {
    fn from(policy: OnLeaseLossArg) -> Self {
        match policy {
            OnLeaseLossArg::Stop => Self::Stop,
            OnLeaseLossArg::Continue => Self::Continue,
        }
    }
}

/// Parses `name=value`; an age as `30m`, a size as `64MiB`, `default` to reset a limit.
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

/// Parses a number of bytes, such as `500000`, `64KiB`, `10MiB` or `2GiB`.
pub(in crate::verbs) fn bytes(text: &str) -> Result<u64, String> {
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

/// Parses `name=value`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is written name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_parsed_with_human_units() {
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

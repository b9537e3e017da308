//! Search for the chain that keeps a revision or a time of a tenant.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use stead_types::TenantTime;

use super::{
    catalog::Catalog,
    chain::{Chain, Moment, Point, point},
};
use crate::exit::{Code, CommandError};

/// Finds what is asked for of a tenant: in the backup `id`, else in the newest, or in any where the moment is not the newest.
///
/// # Errors
///
/// It is not kept: what is.
pub(super) fn find(
    catalog: &Catalog,
    tenant: &str,
    id: Option<&str>,
    moment: Moment,
) -> Result<(Chain, Point), CommandError> {
    if id.is_some() || moment == Moment::Newest {
        let tip = catalog.find(id)?;
        let chain = Chain::load(catalog, &tip, tenant)?;
        let range = (point(chain.root())?, point(chain.tip())?);
        if !is_within(range, moment) {
            return Err(not_kept(tenant, moment, &[range], &[]));
        }
        let point = chain.point(moment)?;
        return Ok((chain, point));
    }
    let (chains, unusable) = chains(catalog, tenant)?;
    // By the backup with all keys; of several chains with the same one the longest.
    let mut ranges = BTreeMap::new();
    for chain in &chains {
        let range = (point(chain.root())?, point(chain.tip())?);
        if is_within(range, moment) {
            let point = chain.point(moment)?;
            return Ok((chain.clone(), point));
        }
        ranges.insert(chain.root().id.clone(), range);
    }
    let ranges: Vec<_> = ranges.into_values().collect();
    Err(not_kept(tenant, moment, &ranges, &unusable))
}

/// Returns the chains of a tenant as it is in its newest backup, the oldest first, and why others cannot be used.
fn chains(catalog: &Catalog, tenant: &str) -> Result<(Vec<Chain>, Vec<String>), CommandError> {
    let (mut chains, mut unusable, mut number) = (Vec::new(), Vec::new(), None);
    for listed in catalog.all()?.into_iter().rev() {
        let manifest = match listed.manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                unusable.push(error.text().to_owned());
                continue;
            }
        };
        manifest.check_open()?;
        let Some(backup) = manifest.tenants.get(tenant) else {
            continue;
        };
        // Revisions of another tenant of this name mean nothing here.
        if *number.get_or_insert(backup.number) != backup.number {
            continue;
        }
        match Chain::load(catalog, &manifest, tenant) {
            Ok(chain) => chains.push(chain),
            Err(error) => unusable.push(error.text().to_owned()),
        }
    }
    if chains.is_empty() && unusable.is_empty() {
        let what = format!("{} has no backup of tenant {tenant}", catalog.place);
        return Err(CommandError::new(Code::NotFound, what));
    }
    chains.reverse();
    Ok((chains, unusable))
}

fn is_within((root, tip): (Point, Point), moment: Moment) -> bool {
    match moment {
        Moment::Newest => true,
        Moment::Revision(revision) => (root.revision..=tip.revision).contains(&revision),
        Moment::Time(time) => match (root.time, tip.time) {
            (Some(root), Some(tip)) => (root..=tip).contains(&time),
            (_, _) => false,
        },
    }
}

fn not_kept(tenant: &str, moment: Moment, ranges: &[(Point, Point)], unusable: &[String]) -> CommandError {
    let shown = |point: &Point| match moment {
        Moment::Newest | Moment::Revision(_) => point.revision.to_string(),
        Moment::Time(_) => point.time.map_or_else(|| "an unknown time".to_owned(), rfc3339),
    };
    let wanted = match moment {
        Moment::Newest => "the newest".to_owned(),
        Moment::Revision(revision) => format!("revision {revision}"),
        Moment::Time(time) => rfc3339(time),
    };
    let kept: Vec<String> = ranges
        .iter()
        .map(|(root, tip)| match shown(root) == shown(tip) {
            true => shown(root),
            false => format!("{} to {}", shown(root), shown(tip)),
        })
        .collect();
    let kept = match kept.is_empty() {
        true => "nothing".to_owned(),
        false => kept.join(", "),
    };
    let unusable = match unusable.is_empty() {
        true => String::new(),
        false => format!("; not usable: {}", unusable.join("; ")),
    };
    let what = format!("tenant {tenant}: {wanted} is not kept; kept is {kept}{unusable}");
    CommandError::new(Code::NotFound, what)
}

fn rfc3339(time: TenantTime) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(time.0));
    time.map_or_else(
        || "an invalid time".to_owned(),
        |time| humantime::format_rfc3339_millis(time).to_string(),
    )
}

//! Chain of a tenant: a backup with all its keys, and those with the changes since, one after the other.

use std::{io::BufRead, rc::Rc};

use stead_client::Revision;
use stead_types::TenantTime;

use super::{
    catalog::Catalog,
    change::{self, Change},
    files::{Part, Source},
    manifest::{Manifest, TenantBackup},
};
use crate::exit::{Code, CommandError};

/// Most links of a chain.
const LINKS_MAX: usize = 100_000;

/// One backup of a tenant.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Name of the backup.
    pub(super) id: String,
    pub(super) backup: TenantBackup,
    pub(super) source: Source,
}

/// Backups of a tenant from which it is composed: the first has all keys.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) tenant: String,
    pub(super) links: Vec<Link>,
}

/// Moment that is asked for, of those that a chain keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Its end.
    Newest,
    /// A revision.
    Revision(Revision),
    /// The last revision at this tenant time.
    Time(TenantTime),
}

/// Revision of a tenant that a chain keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) revision: Revision,
    /// Tenant time, where it is known.
    pub(super) time: Option<TenantTime>,
}

impl Chain {
    /// Finds the chain that ends with a backup.
    ///
    /// # Errors
    ///
    /// A link is missing or damaged, or does not fit the one after it.
    pub(super) fn load(catalog: &Catalog, tip: &Rc<Manifest>, tenant: &str) -> Result<Self, CommandError> {
        let mut links = vec![Self::link(catalog, tip, tip.tenant(tenant)?)];
        let mut manifest = Rc::clone(tip);
        while let Some(since) = links.last().and_then(|link| link.backup.since.clone()) {
            let base = catalog.base(&manifest, &since.backup)?;
            base.check_open()?;
            let number = links[0].backup.number;
            let fits = |backup: &&TenantBackup| backup.number == number && backup.revision == since.revision;
            let Some(backup) = base.tenants.get(tenant).filter(fits) else {
                let what = format!(
                    "backup {} builds on revision {} of tenant {tenant} in backup {}, which does not have it",
                    manifest.id, since.revision, base.id
                );
                return Err(CommandError::new(Code::Failed, what));
            };
            if links.len() >= LINKS_MAX {
                let what = format!("backup {} builds on more than {LINKS_MAX} others", tip.id);
                return Err(CommandError::new(Code::Failed, what));
            }
            links.push(Self::link(catalog, &base, backup));
            manifest = base;
        }
        links.reverse();
        Ok(Self {
            tenant: tenant.to_owned(),
            links,
        })
    }

    fn link(catalog: &Catalog, manifest: &Manifest, backup: &TenantBackup) -> Link {
        Link {
            id: manifest.id.clone(),
            backup: backup.clone(),
            source: manifest.source(&catalog.place, catalog.key.as_ref()),
        }
    }

    /// Returns the link with all keys.
    pub(super) fn root(&self) -> &Link {
        &self.links[0]
    }

    /// Returns the last link.
    pub(super) fn tip(&self) -> &Link {
        &self.links[self.links.len() - 1]
    }

    /// Tells whether it has changes.
    pub(super) fn has_changes(&self) -> bool {
        self.links.len() > 1
    }

    /// Compares every file with its digest.
    pub(super) fn verify(&self) -> Result<(), CommandError> {
        let parts = |link: &Link| link.backup.parts.iter().try_for_each(|part| link.source.verify(part));
        self.links.iter().try_for_each(parts)
    }

    /// Finds what is asked for.
    ///
    /// # Errors
    ///
    /// It is not kept: what is.
    pub(super) fn point(&self, moment: Moment) -> Result<Point, CommandError> {
        match moment {
            Moment::Newest => point(self.tip()),
            Moment::Revision(revision) => self.at_revision(revision),
            Moment::Time(time) => self.at_time(time),
        }
    }

    fn at_revision(&self, wanted: Revision) -> Result<Point, CommandError> {
        let (mut before, mut time) = (point(self.root())?, None);
        let mut is_there = false;
        for link in &self.links {
            let point = point(link)?;
            is_there |= point.revision == wanted;
            if point.revision <= wanted && before.revision <= point.revision {
                before = point;
            }
        }
        self.changes(&mut |change| {
            is_there |= change.revision == wanted;
            if change.revision <= wanted && change.revision >= before.revision {
                before.revision = change.revision;
                time = change.time;
            }
        })?;
        if !is_there {
            let what = format!(
                "tenant {}: no change that is kept has the revision {wanted}",
                self.tenant
            );
            return Err(
                CommandError::new(Code::NotFound, what).hint(format!("the last one before it is {}", before.revision))
            );
        }
        Ok(Point {
            revision: wanted,
            time: time.or(before.time),
        })
    }

    fn at_time(&self, wanted: TenantTime) -> Result<Point, CommandError> {
        let mut found = point(self.root())?;
        let mut without_time = 0_u64;
        self.changes(&mut |change| match change.time {
            Some(time) if time <= wanted && change.revision > found.revision => {
                found.revision = change.revision;
            }
            Some(_) => {}
            None => without_time += 1,
        })?;
        if without_time > 0 {
            let what = format!(
                "tenant {}: {without_time} changes have no time, as nodes of an earlier version told of them",
                self.tenant
            );
            return Err(CommandError::new(Code::Failed, what).hint("--at-revision names a revision"));
        }
        Ok(Point {
            time: Some(wanted),
            ..found
        })
    }

    /// Reads all changes, in no order.
    fn changes(&self, see: &mut dyn FnMut(&Change)) -> Result<(), CommandError> {
        for link in &self.links[1..] {
            for part in &link.backup.parts {
                read_changes(&link.source, part, see)?;
            }
        }
        Ok(())
    }
}

/// Returns the revision of a link.
pub(super) fn point(link: &Link) -> Result<Point, CommandError> {
    Ok(Point {
        revision: link.backup.revision()?,
        time: link.backup.time.map(TenantTime),
    })
}

fn read_changes(source: &Source, part: &Part, see: &mut dyn FnMut(&Change)) -> Result<(), CommandError> {
    let mut lines = source.open(part)?;
    let mut line = Vec::new();
    while lines
        .read_until(b'\n', &mut line)
        .map_err(|error| source.failed(part, &error))?
        > 0
    {
        let change = change::parse(&line);
        see(&change.map_err(|what| source.failed(part, &std::io::Error::other(what)))?);
        line.clear();
    }
    Ok(())
}

//! An account as it stands.

use bytes::Bytes;
use stead_types::{Error, Revision};

use super::{Credits, record};
use crate::{Item, Read, Scan};

/// An account at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// As of this revision.
    pub revision: Revision,
    /// What can be reserved; below zero only where [`super::Overdraft::Allowed`] was said.
    pub balance: i64,
    /// What was settled.
    pub spent: u64,
    /// What was ever granted.
    pub granted: u64,
    /// What is set aside by open reservations, expired ones included.
    pub reserved: u64,
    /// How many there are.
    pub reservations: u64,
}

impl Account {
    /// Tells whether nothing is missing and nothing too much (C1): always so, unless somebody else writes its keys.
    pub fn is_balanced(&self) -> bool {
        i128::from(self.balance) + i128::from(self.reserved) + i128::from(self.spent) == i128::from(self.granted)
    }
}

impl Credits {
    /// Reads the account, with all open reservations: for people and for tests, not for each request.
    ///
    /// # Errors
    ///
    /// As [`crate::Tenant::scan`].
    pub async fn account(&self) -> Result<Account, Error> {
        let keys: Vec<Bytes> = vec![self.keys.balance(), self.keys.spent(), self.keys.granted()];
        let batch = self.tenant.batch_get(keys, &Read::default()).await?;
        let revision = batch.header.revision;
        let mut account = Account {
            revision,
            balance: held(batch.items.first())?,
            spent: held(batch.items.get(1))?,
            granted: held(batch.items.get(2))?,
            reserved: 0,
            reservations: 0,
        };
        let scan = Scan {
            prefix: self.keys.dues(),
            read: Read {
                revision: Some(revision),
                ..Read::default()
            },
            ..Scan::default()
        };
        let mut open = self.tenant.scan_stream(&scan);
        while let Some(item) = open.next().await? {
            account.reserved += record::number::<u64>(&item)?;
            account.reservations += 1;
        }
        Ok(account)
    }
}

/// Reads a number; nothing is none.
fn held<N: std::str::FromStr + Default>(item: Option<&Option<Item>>) -> Result<N, Error> {
    match item {
        Some(Some(item)) => record::number(item),
        Some(None) | None => Ok(N::default()),
    }
}

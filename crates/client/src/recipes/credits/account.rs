//! Balance of a credit account.

use bytes::Bytes;
use stead_types::{Error, Revision};

use super::{Credits, record};
use crate::{Item, ReadOptions, ScanOptions};

/// Credit account at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Revision of all figures.
    pub revision: Revision,
    /// Credits that can be reserved; below zero only after [`super::Overdraft::Allowed`].
    pub balance: i64,
    /// Credits that were settled.
    pub spent: u64,
    /// Credits that were ever granted.
    pub granted: u64,
    /// Credits that are set aside by open reservations, expired ones included.
    pub reserved: u64,
    /// Number of open reservations.
    pub reservations: u64,
}

impl Account {
    /// Tells whether the figures add up (C1): always so, unless somebody else writes the account's keys.
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
        let batch = self.tenant.batch_get(keys, &ReadOptions::default()).await?;
        let revision = batch.header.revision;
        let mut account = Account {
            revision,
            balance: number_or_zero(batch.items.first())?,
            spent: number_or_zero(batch.items.get(1))?,
            granted: number_or_zero(batch.items.get(2))?,
            reserved: 0,
            reservations: 0,
        };
        let scan = ScanOptions {
            prefix: self.keys.dues(),
            read: ReadOptions {
                revision: Some(revision),
                ..ReadOptions::default()
            },
            ..ScanOptions::default()
        };
        let mut open = self.tenant.scan_stream(&scan);
        while let Some(item) = open.next().await? {
            account.reserved += record::number::<u64>(&item)?;
            account.reservations += 1;
        }
        Ok(account)
    }
}

/// Parses a number; an absent key is zero.
fn number_or_zero<N: std::str::FromStr + Default>(item: Option<&Option<Item>>) -> Result<N, Error> {
    match item {
        Some(Some(item)) => record::number(item),
        Some(None) | None => Ok(N::default()),
    }
}

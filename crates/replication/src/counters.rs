//! What crosses borders, counted where it is sent.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use stead_types::{RegionName, TenantNumber};

/// A border and its direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Border {
    /// Where the bytes came from.
    pub from: RegionName,
    /// Where they went.
    pub to: RegionName,
}

/// Bytes of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Before compression.
    pub raw: u64,
    /// On the wire, as the tenant's share of compressed batches.
    pub wire: u64,
}

/// Bytes by tenant and border, of a whole node. One row for each tenant that was fed since the node started.
#[derive(Debug, Default)]
pub struct Counters {
    bytes: Mutex<BTreeMap<Border, BTreeMap<TenantNumber, Bytes>>>,
}

impl Counters {
    /// Counts a batch of `wire` bytes with these raw lengths of tenants.
    pub fn add(&self, border: &Border, parts: &[(TenantNumber, usize)], wire: usize) {
        let raw_total = parts.iter().map(|(_, raw)| *raw as u64).sum::<u64>().max(1);
        let mut bytes = self.bytes.lock();
        let tenants = match bytes.get_mut(border) {
            Some(tenants) => tenants,
            None => bytes.entry(border.clone()).or_default(),
        };
        for (tenant, raw) in parts {
            let counted = tenants.entry(*tenant).or_default();
            counted.raw += *raw as u64;
            counted.wire += wire as u64 * *raw as u64 / raw_total;
        }
    }

    /// Returns what was counted for a tenant.
    pub fn of_tenant(&self, tenant: TenantNumber) -> Vec<(Border, Bytes)> {
        let bytes = self.bytes.lock();
        let of = |(border, tenants): (&Border, &BTreeMap<TenantNumber, Bytes>)| {
            Some((border.clone(), *tenants.get(&tenant)?))
        };
        bytes.iter().filter_map(of).collect()
    }

    /// Returns the sum over all tenants for each border.
    pub fn totals(&self) -> Vec<(Border, Bytes)> {
        let bytes = self.bytes.lock();
        let sum = |tenants: &BTreeMap<TenantNumber, Bytes>| {
            tenants.values().fold(Bytes::default(), |sum, one| Bytes {
                raw: sum.raw + one.raw,
                wire: sum.wire + one.wire,
            })
        };
        bytes
            .iter()
            .map(|(border, tenants)| (border.clone(), sum(tenants)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_shared_out_by_raw_length() {
        let counters = Counters::default();
        let border = Border {
            from: "eu-west".parse().unwrap(),
            to: "us-east".parse().unwrap(),
        };
        let (a, b) = (TenantNumber::new(1), TenantNumber::new(2));
        counters.add(&border, &[(a, 300), (b, 100)], 40);
        counters.add(&border, &[(a, 100)], 10);
        assert_eq!(counters.of_tenant(a), [(border.clone(), Bytes { raw: 400, wire: 40 })]);
        assert_eq!(counters.totals(), [(border, Bytes { raw: 500, wire: 50 })]);
        assert_eq!(counters.of_tenant(TenantNumber::new(3)), []);
    }
}

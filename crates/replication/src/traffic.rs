//! Counters of replication traffic between regions, by tenant, counted where it is sent.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use stead_types::{RegionName, TenantNumber};

/// Two regions, with the direction of the traffic between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegionPair {
    /// Region that sends.
    pub from: RegionName,
    /// Region that receives.
    pub to: RegionName,
}

/// Bytes of replicated changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficBytes {
    /// Before compression.
    pub raw: u64,
    /// On the wire, as the tenant's share of compressed batches.
    pub wire: u64,
}

/// Sent bytes of a whole node by tenant and region pair. One entry for each tenant that was sent since the node
/// started.
#[derive(Debug, Default)]
pub struct TrafficCounters {
    bytes: Mutex<BTreeMap<RegionPair, BTreeMap<TenantNumber, TrafficBytes>>>,
}

impl TrafficCounters {
    /// Counts a batch of `wire` bytes, shared out over tenants by their raw lengths.
    pub fn add(&self, region_pair: &RegionPair, parts: &[(TenantNumber, usize)], wire: usize) {
        let raw_total = parts.iter().map(|(_, raw)| *raw as u64).sum::<u64>().max(1);
        let mut bytes = self.bytes.lock();
        let tenants = match bytes.get_mut(region_pair) {
            Some(tenants) => tenants,
            None => bytes.entry(region_pair.clone()).or_default(),
        };
        for (tenant, raw) in parts {
            let counted = tenants.entry(*tenant).or_default();
            counted.raw += *raw as u64;
            counted.wire += wire as u64 * *raw as u64 / raw_total;
        }
    }

    /// Returns the bytes of a tenant by region pair.
    pub fn of_tenant(&self, tenant: TenantNumber) -> Vec<(RegionPair, TrafficBytes)> {
        let bytes = self.bytes.lock();
        let of = |(region_pair, tenants): (&RegionPair, &BTreeMap<TenantNumber, TrafficBytes>)| {
            Some((region_pair.clone(), *tenants.get(&tenant)?))
        };
        bytes.iter().filter_map(of).collect()
    }

    /// Returns the bytes of all tenants by region pair.
    pub fn totals(&self) -> Vec<(RegionPair, TrafficBytes)> {
        let bytes = self.bytes.lock();
        let sum = |tenants: &BTreeMap<TenantNumber, TrafficBytes>| {
            tenants.values().fold(TrafficBytes::default(), |sum, one| TrafficBytes {
                raw: sum.raw + one.raw,
                wire: sum.wire + one.wire,
            })
        };
        bytes
            .iter()
            .map(|(region_pair, tenants)| (region_pair.clone(), sum(tenants)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_bytes_are_attributed_by_raw_length() {
        let counters = TrafficCounters::default();
        let region_pair = RegionPair {
            from: "eu-west".parse().unwrap(),
            to: "us-east".parse().unwrap(),
        };
        let (a, b) = (TenantNumber::new(1), TenantNumber::new(2));
        counters.add(&region_pair, &[(a, 300), (b, 100)], 40);
        counters.add(&region_pair, &[(a, 100)], 10);
        assert_eq!(
            counters.of_tenant(a),
            [(region_pair.clone(), TrafficBytes { raw: 400, wire: 40 })]
        );
        assert_eq!(counters.totals(), [(region_pair, TrafficBytes { raw: 500, wire: 50 })]);
        assert_eq!(counters.of_tenant(TenantNumber::new(3)), []);
    }
}

//! Ports of nodes: a fixed range, or free ports that are claimed.
//!
//! # Invariants
//!
//! * **P1** Two clusters with [`Ports::Any`] never share a port, whichever processes they are started from.

use std::net::{Ipv4Addr, TcpListener};

/// Ports that nodes listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Ports at fixed distances from this one, stored with the data; with fresh data, later ranges are tried if a port
    /// is in use.
    From(u16),
    /// Any free ports: for data that is removed with the cluster.
    Any,
}

/// Range of claimed ports, below the ephemeral ports of outgoing connections (32768 on Linux), so that none of these
/// takes the port of a node that is down for a moment.
const FIRST: u16 = 12_000;
const LAST: u16 = 20_000;
/// Ports of a block; ports are claimed by blocks, by listening at the first of each.
const BLOCK: u16 = 16;

/// Claim on the ports of one cluster, for as long as this value exists.
#[derive(Debug)]
pub(super) struct PortClaim {
    /// Listeners at the first ports of the claimed blocks (P1). The system closes them with the process; lock files
    /// could be left behind.
    guards: Vec<TcpListener>,
    ports: Vec<u16>,
}

impl PortClaim {
    /// Claims `count` free ports; `None` if there are not as many.
    pub(super) fn take(count: usize) -> Option<Self> {
        let blocks = (LAST - FIRST) / BLOCK;
        // Processes begin at different blocks, so that they seldom collide.
        let start = (std::process::id() % u32::from(blocks)) as u16;
        let mut claim = Self {
            guards: Vec::new(),
            ports: Vec::new(),
        };
        for block in (0..blocks).map(|block| (start + block) % blocks) {
            if claim.ports.len() >= count {
                break;
            }
            claim.add(FIRST + block * BLOCK);
        }
        claim.ports.truncate(count);
        (claim.ports.len() == count).then_some(claim)
    }

    fn add(&mut self, first: u16) {
        if let Ok(guard) = listen(first)
            && (first + 1..first + BLOCK).all(is_free)
        {
            self.guards.push(guard);
            self.ports.extend(first + 1..first + BLOCK);
        }
    }

    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }
}

pub(super) fn is_free(port: u16) -> bool {
    listen(port).is_ok()
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn p1_claims_share_no_port_and_skip_used_ones() {
        let first = PortClaim::take(3).unwrap();
        let busy = first.ports()[0] - 1 + 2 * BLOCK;
        let _somebody = listen(busy + 7);
        let claims = [PortClaim::take(40).unwrap(), PortClaim::take(9).unwrap()];
        let mut all: Vec<u16> = claims
            .iter()
            .chain([&first])
            .flat_map(|claim| claim.ports.clone())
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "no port twice");
        assert_eq!(count, 52);
        assert!(!all.contains(&(busy + 7)));
        assert!(claims[0].ports().iter().all(|port| is_free(*port)));
    }

    #[test]
    fn p1_ports_are_free_after_claim_is_dropped() {
        let claim = PortClaim::take(1).unwrap();
        let guard = claim.ports()[0] - 1;
        assert!(!is_free(guard));
        drop(claim);
        // Other tests of this process look at all ports, and hold each for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_free(guard) {
            assert!(Instant::now() < deadline, "port {guard} is still taken");
            std::thread::yield_now();
        }
    }

    #[test]
    fn claim_of_too_many_ports_fails() {
        assert!(PortClaim::take(usize::from(LAST)).is_none());
    }
}

//! Where nodes listen: a range that stays, or ports that nobody else has.
//!
//! # Invariants
//!
//! * **P1** Two clusters with [`Ports::Any`] never share a port, whichever processes they are started from.

use std::net::{Ipv4Addr, TcpListener};

/// Where nodes listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// At fixed distances from this one, kept with the data; with fresh data, later ranges are tried if a port is in
    /// use.
    From(u16),
    /// At any that are free: for data that goes with the cluster.
    Any,
}

/// Below what systems give to outgoing connections (32768 on Linux), so that none of these takes the port of a node
/// that is down for a moment.
const FIRST: u16 = 12_000;
const LAST: u16 = 20_000;
/// Ports are taken by blocks; the first of each stands for all.
const BLOCK: u16 = 16;

/// Ports of one cluster, for as long as this value is.
#[derive(Debug)]
pub(super) struct Claim {
    /// P1: whoever listens at the first port of a block has the block. The system ends that with the process, and it
    /// knows of no leftovers, as files would.
    guards: Vec<TcpListener>,
    ports: Vec<u16>,
}

impl Claim {
    /// Takes as many free ports; `None` if there are not as many.
    pub(super) fn take(count: usize) -> Option<Self> {
        let blocks = (LAST - FIRST) / BLOCK;
        // Processes begin at different places, so that they seldom meet.
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
    fn p1_claims_share_no_port_and_leave_out_what_somebody_else_listens_at() {
        let first = Claim::take(3).unwrap();
        let busy = first.ports()[0] - 1 + 2 * BLOCK;
        let _somebody = listen(busy + 7);
        let claims = [Claim::take(40).unwrap(), Claim::take(9).unwrap()];
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
    fn ports_are_free_again_with_the_claim() {
        let claim = Claim::take(1).unwrap();
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
    fn there_are_not_as_many_as_one_likes() {
        assert!(Claim::take(usize::from(LAST)).is_none());
    }
}

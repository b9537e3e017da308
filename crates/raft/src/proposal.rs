//! Proposals: commands with deadlines, and their split into entries.

use bytes::Bytes;
use tokio::time::Instant;

use crate::queue::{COMMAND_BYTES, ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX};

/// Command with its deadline and its extra work.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The command, which starts with its kind byte.
    pub command: Bytes,
    /// Bytes that it counts for beyond its own, where the machine's work exceeds them.
    pub work: usize,
    /// It is in no entry that is made after this time.
    pub deadline: Instant,
}

impl Proposal {
    /// Returns its weight in every bound.
    pub(crate) fn weight(&self) -> usize {
        self.command.len() + COMMAND_BYTES + self.work
    }
}

/// Splits proposals into parts that fit one entry each; a larger proposal is a part of its own. A part is proposed as a
/// whole in one turn, so that other classes wait for all of it.
pub fn split_into_entries<T>(all: impl IntoIterator<Item = (T, Proposal)>) -> Vec<(Vec<T>, Vec<Proposal>)> {
    let mut parts: Vec<(Vec<T>, Vec<Proposal>)> = Vec::new();
    let mut weight = 0;
    for (from, proposal) in all {
        weight += proposal.weight();
        match parts.last_mut() {
            Some((froms, proposals)) if proposals.len() < ENTRY_COMMANDS_MAX && weight <= ENTRY_BYTES_MAX => {
                froms.push(from);
                proposals.push(proposal);
            }
            Some(_) | None => {
                weight = proposal.weight();
                parts.push((vec![from], vec![proposal]));
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_keeps_entry_bounds_order_and_all_proposals() {
        let deadline = Instant::now();
        let proposal = |(len, work)| Proposal {
            command: Bytes::from(vec![0; len]),
            work,
            deadline,
        };
        let (small, heavy, huge) = ((10, 0), (10, 32 << 10), (2 * ENTRY_BYTES_MAX, 0));
        let asked = [vec![small; ENTRY_COMMANDS_MAX + 1], vec![heavy; 20], vec![huge, small]].concat();
        let parts = split_into_entries(asked.iter().copied().map(proposal).enumerate());
        for (_, part) in &parts {
            let weight: usize = part.iter().map(Proposal::weight).sum();
            assert!(part.len() <= ENTRY_COMMANDS_MAX && (weight <= ENTRY_BYTES_MAX || part.len() == 1));
        }
        let lens: Vec<usize> = parts.iter().map(|(_, part)| part.len()).collect();
        assert_eq!(lens, [ENTRY_COMMANDS_MAX, 8, 7, 6, 1, 1]);
        let numbers: Vec<usize> = parts.into_iter().flat_map(|(numbers, _)| numbers).collect();
        assert!(numbers.into_iter().eq(0..asked.len()));
    }
}

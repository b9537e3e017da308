//! Commands that are wanted for some time only, and how many of them go together.

use bytes::Bytes;
use tokio::time::Instant;

use crate::queue::{COMMAND_BYTES, ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX};

/// A command, until when it is wanted, and how heavy it is.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Starts with its kind byte.
    pub command: Bytes,
    /// Bytes for which it counts beyond its own, where it makes the machine do more than they tell.
    pub work: usize,
    /// It is no part of an entry that is made later.
    pub deadline: Instant,
}

impl Proposal {
    /// What it counts for in every bound.
    pub(crate) fn weight(&self) -> usize {
        self.command.len() + COMMAND_BYTES + self.work
    }
}

/// Splits what came together into parts that fit an entry each; one proposal that is larger is a part of its own. What
/// is proposed together is one turn and one entry, so that others wait for all of it.
pub fn parts<T>(all: impl IntoIterator<Item = (T, Proposal)>) -> Vec<(Vec<T>, Vec<Proposal>)> {
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
    fn a_part_keeps_both_bounds_of_an_entry_and_nothing_is_lost_or_overtaken() {
        let deadline = Instant::now();
        let proposal = |(len, work)| Proposal {
            command: Bytes::from(vec![0; len]),
            work,
            deadline,
        };
        let (small, heavy, huge) = ((10, 0), (10, 32 << 10), (2 * ENTRY_BYTES_MAX, 0));
        let asked = [vec![small; ENTRY_COMMANDS_MAX + 1], vec![heavy; 20], vec![huge, small]].concat();
        let parts = parts(asked.iter().copied().map(proposal).enumerate());
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

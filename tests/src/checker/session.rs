//! Checker of session guarantees: a response is never older than the session's token.
//!
//! A session's token, when it sends a call, is the highest revision among its responses until then, from whatever level
//! of reading. Linearizable and session reads must answer at or past it, a change must come after it. Bounded and local
//! reads carry no guarantee, but the revisions that they showed are part of the token.

use std::collections::BTreeMap;

use stead_types::Revision;

use super::Violation;
use crate::history::{History, Level, Operation};

/// Session guarantee, by the names of Terry et al. (1994).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// A read shows the session's own writes.
    ReadYourWrites,
    /// A read shows at least what the session's reads have shown.
    MonotonicReads,
    /// A change is ordered after the session's reads and writes.
    WritesFollowReads,
}

/// Finds responses that are older than their session's token.
pub fn check(history: &History) -> Vec<Violation> {
    let mut sessions: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.operations().iter().enumerate() {
        sessions.entry(operation.session).or_default().push(index);
    }
    sessions
        .values()
        .flat_map(|session| check_session(history.operations(), session))
        .collect()
}

fn check_session(operations: &[Operation], session: &[usize]) -> Vec<Violation> {
    let has_response = |index: &usize| operations[*index].response.is_some();
    let mut returns: Vec<usize> = session.iter().copied().filter(has_response).collect();
    returns.sort_by_key(|index| operations[*index].returned());
    let mut returns = returns.into_iter().peekable();
    let mut token: Option<(Revision, usize)> = None;
    let mut violations = Vec::new();
    for &later in session {
        let operation = &operations[later];
        while let Some(earlier) = returns.next_if(|earlier| operations[*earlier].is_before(operation)) {
            token = token.max(revision(&operations[earlier]).map(|revision| (revision, earlier)));
        }
        let (Some(answered), Some((token, earlier))) = (revision(operation), token) else {
            continue;
        };
        let is_kept = match operation.call.level() {
            None => answered > token || (answered == token && !is_change(operation)),
            Some(Level::Linearizable | Level::Session) => answered >= token,
            Some(Level::Bounded | Level::Local) => true,
        };
        if !is_kept {
            let guarantee = guarantee(&operations[earlier], operation);
            violations.push(Violation::SessionGuarantee {
                guarantee,
                earlier,
                later,
            });
        }
    }
    violations
}

fn revision(operation: &Operation) -> Option<Revision> {
    operation.response.as_ref().map(|response| response.revision)
}

fn is_change(operation: &Operation) -> bool {
    operation.response.as_ref().is_some_and(|response| response.changed)
}

fn guarantee(earlier: &Operation, later: &Operation) -> Guarantee {
    match (earlier.call.level(), later.call.level()) {
        (_, None) => Guarantee::WritesFollowReads,
        (None, Some(_)) => Guarantee::ReadYourWrites,
        (Some(_), Some(_)) => Guarantee::MonotonicReads,
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;

//! Linearizability checker for registers whose written values are unique, by zones (Gibbons and Korach, 1997).
//!
//! The operations of one value (its write and its reads) stand together in any order that explains them. They span a
//! zone between the earliest return and the latest invocation among them. Value `a` must come before value `b` if some
//! operation of `a` returned before some operation of `b` was sent; there is an order if and only if no two values must
//! each come before the other. Zones make that a sort and one look-up for each value.
//!
//! Keys that were deleted have no unique values (two absences look alike) and go to [`search`].

use bytes::Bytes;

use super::{Violation, search};
use crate::history::{Action, Event, History, NEVER};

/// Finds keys whose responses no linearizable register could have given.
pub fn check(history: &History) -> Vec<Violation> {
    let registers = history.registers();
    let mut violations: Vec<Violation> = registers
        .garbage_reads
        .iter()
        .map(|(read, key)| Violation::GarbageRead {
            read: *read,
            key: key.clone(),
        })
        .collect();
    for (key, events) in &registers.by_key {
        if events.iter().any(|event| event.action == Action::Clear) {
            violations.extend(search::check_key(key, events));
        } else {
            violations.extend(check_key(key, events));
        }
    }
    violations
}

/// Interval that the operations of one value span, in instants above 0; 0 is before all of them.
#[derive(Clone, Copy, Debug)]
struct Zone {
    /// `None`: the key's absence at the start.
    write: Option<usize>,
    /// The earliest return.
    finish: u64,
    /// The latest invocation.
    start: u64,
}

impl Zone {
    /// Whether one of its operations returned before another was sent: nothing else fits between.
    fn is_forward(&self) -> bool {
        self.finish < self.start
    }
}

/// Checks whether one register without deletes explains these events.
pub fn check_key(key: &Bytes, events: &[Event]) -> Option<Violation> {
    let zones = match zones(events) {
        Ok(zones) => zones,
        Err(violation) => return Some(violation),
    };
    let no_order = |one: &Zone, other: &Zone| Violation::OrderConflict {
        key: key.clone(),
        one: one.write,
        other: other.write,
    };
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) = zones.into_iter().partition(Zone::is_forward);
    forward.sort_by_key(|zone| zone.finish);
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].finish < pair[0].start) {
        return Some(no_order(&pair[0], &pair[1]));
    }
    backward.iter().find_map(|zone| {
        // Forward zones do not overlap, so only the last that opens below this one can reach beyond its end.
        let opened = forward.partition_point(|other| other.finish < zone.start);
        let around = opened.checked_sub(1).map(|last| &forward[last])?;
        (around.start > zone.finish).then(|| no_order(around, zone))
    })
}

fn zones(events: &[Event]) -> Result<Vec<Zone>, Violation> {
    // The start's absence was written before every instant; instants are moved up by one to make room.
    let mut zones = vec![Zone {
        write: None,
        finish: 0,
        start: 0,
    }];
    let mut positions = std::collections::HashMap::new();
    for event in events {
        if let Action::Write(value) = event.action {
            positions.insert(value, zones.len());
            let finish = if event.is_open() { NEVER } else { event.returned + 1 };
            zones.push(Zone {
                write: Some(event.operation),
                finish,
                start: event.invoked + 1,
            });
        }
    }
    for event in events {
        let Action::Read(value) = event.action else { continue };
        let zone = &mut zones[value.map_or(0, |value| positions[&value])];
        if let Some(write) = zone.write
            && let Some(sent) = sent(events, write)
            && event.returned < sent
        {
            return Err(Violation::FutureRead {
                read: event.operation,
                write,
            });
        }
        zone.finish = zone.finish.min(event.returned + 1);
        zone.start = zone.start.max(event.invoked + 1);
    }
    Ok(zones)
}

/// Returns when the write was sent. Events are ordered by invocation, and so are the numbers of their operations.
fn sent(events: &[Event], write: usize) -> Option<u64> {
    let position = events.binary_search_by_key(&write, |event| event.operation).ok()?;
    Some(events[position].invoked)
}

#[cfg(test)]
#[path = "linearizability_test.rs"]
mod tests;

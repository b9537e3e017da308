//! Encoding of conditions.

use stead_types::{Condition, Operand, Relation, Revision};

use crate::codec::{Malformed, Reader, Writer};

const NONE: u8 = 0;
const ABSENT: u8 = 1;
const EXISTS: u8 = 2;
const MODIFIED_EQUAL: u8 = 3;
const COMPARED: u8 = 4;

/// Returns the approximate encoded length of a condition.
pub(super) fn len(condition: &Condition) -> usize {
    match condition {
        Condition::Compared(_, Operand::Value(bytes)) => 8 + bytes.len(),
        Condition::Absent | Condition::Exists | Condition::Compared(..) => 12,
    }
}

pub(super) fn encode(condition: Option<&Condition>, w: &mut Writer) {
    match condition {
        None => drop(w.u8(NONE)),
        Some(Condition::Absent) => drop(w.u8(ABSENT)),
        Some(Condition::Exists) => drop(w.u8(EXISTS)),
        Some(Condition::Compared(Relation::Equal, Operand::Modified(revision))) => {
            w.u8(MODIFIED_EQUAL).u64(revision.to_u64());
        }
        Some(Condition::Compared(relation, operand)) => {
            w.u8(COMPARED).u8(relation_to_u8(*relation));
            match operand {
                Operand::Modified(revision) => drop(w.u8(1).u64(revision.to_u64())),
                Operand::Created(revision) => drop(w.u8(2).u64(revision.to_u64())),
                Operand::Version(version) => drop(w.u8(3).varint(*version)),
                Operand::Value(bytes) => drop(w.u8(4).bytes(bytes)),
            }
        }
    }
}

pub(super) fn decode(r: &mut Reader) -> Result<Option<Condition>, Malformed> {
    Ok(match r.u8()? {
        NONE => None,
        ABSENT => Some(Condition::Absent),
        EXISTS => Some(Condition::Exists),
        MODIFIED_EQUAL => Some(Condition::modified_at(Revision::from_u64(r.u64()?))),
        COMPARED => {
            let relation = read_relation(r)?;
            let operand = match r.u8()? {
                1 => Operand::Modified(Revision::from_u64(r.u64()?)),
                2 => Operand::Created(Revision::from_u64(r.u64()?)),
                3 => Operand::Version(r.varint()?),
                4 => Operand::Value(r.bytes()?),
                0 | 5.. => return Err(r.malformed()),
            };
            Some(Condition::Compared(relation, operand))
        }
        5.. => return Err(r.malformed()),
    })
}

fn relation_to_u8(relation: Relation) -> u8 {
    match relation {
        Relation::Equal => 1,
        Relation::NotEqual => 2,
        Relation::Less => 3,
        Relation::Greater => 4,
    }
}

fn read_relation(r: &mut Reader) -> Result<Relation, Malformed> {
    Ok(match r.u8()? {
        1 => Relation::Equal,
        2 => Relation::NotEqual,
        3 => Relation::Less,
        4 => Relation::Greater,
        0 | 5.. => return Err(r.malformed()),
    })
}

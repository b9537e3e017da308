//! Conversions of preconditions of writes and compares of transactions.

use std::{cmp::Ordering, collections::BTreeMap};

use bytes::Bytes;
use stead_types::{Condition, Error, Operand, Relation, Revision};

use super::{id, key};
use crate::proto::v1::{self, compare::Target, precondition::Condition as Message};

/// Reads a precondition; an empty one is refused, because its sender believes that it protects something.
pub fn precondition(precondition: Option<v1::Precondition>) -> Result<Option<Condition>, Error> {
    let Some(precondition) = precondition else {
        return Ok(None);
    };
    let relation = relation("precondition.relation", precondition.relation)?;
    let target = match precondition.condition {
        Some(Message::ModRevision(revision)) => Target::ModRevision(revision),
        Some(Message::CreateRevision(revision)) => Target::CreateRevision(revision),
        Some(Message::Version(version)) => Target::Version(version),
        Some(Message::Value(value)) => Target::Value(value),
        Some(Message::MustExist(true)) => Target::Exists(true),
        Some(Message::MustNotExist(true)) => Target::Exists(false),
        Some(Message::MustNotExist(false) | Message::MustExist(false)) | None => {
            return Err(Error::invalid(
                "precondition",
                "precondition: names no condition; set mod_revision, value, version or create_revision, or must_exist or \
                 must_not_exist to true, or leave it out",
            ));
        }
    };
    condition("precondition", relation, target).map(Some)
}

/// Returns the message of a precondition.
pub fn from_precondition(condition: &Condition) -> v1::Precondition {
    let (relation, target) = from_condition(condition);
    let message = match target {
        Target::Exists(true) => Message::MustExist(true),
        Target::Exists(false) => Message::MustNotExist(true),
        Target::ModRevision(revision) => Message::ModRevision(revision),
        Target::CreateRevision(revision) => Message::CreateRevision(revision),
        Target::Version(version) => Message::Version(version),
        Target::Value(value) => Message::Value(value),
    };
    v1::Precondition {
        condition: Some(message),
        relation,
    }
}

/// Reads a compare of the field `field`.
pub fn compare(field: &str, compare: v1::Compare) -> Result<(Bytes, Condition), Error> {
    key::key(&format!("{field}.key"), &compare.key)?;
    let relation = relation(&format!("{field}.relation"), compare.relation)?;
    let target = compare.target.ok_or_else(|| {
        let message =
            format!("{field}: compares nothing; set one of exists, mod_revision, create_revision, version and value");
        Error::invalid(field, message)
    })?;
    Ok((compare.key, condition(field, relation, target)?))
}

/// Returns the message of a compare.
pub fn from_compare(key: Bytes, condition: &Condition) -> v1::Compare {
    let (relation, target) = from_condition(condition);
    v1::Compare {
        key,
        relation,
        target: Some(target),
    }
}

fn condition(field: &str, relation: Option<Relation>, target: Target) -> Result<Condition, Error> {
    let operand = match target {
        Target::Exists(_) if relation.is_some() => {
            let message = format!("{field}.relation: existence takes no relation; leave it out");
            return Err(Error::invalid(format!("{field}.relation"), message));
        }
        Target::Exists(true) => return Ok(Condition::Exists),
        Target::Exists(false) => return Ok(Condition::Absent),
        Target::ModRevision(revision) => Operand::Modified(id::revision(&format!("{field}.mod_revision"), revision)?),
        Target::CreateRevision(revision) => {
            Operand::Created(id::revision(&format!("{field}.create_revision"), revision)?)
        }
        Target::Version(version) => Operand::Version(version),
        Target::Value(value) => {
            key::value(&format!("{field}.value"), &value)?;
            Operand::Value(value)
        }
    };
    let relation = relation.unwrap_or(Relation::Equal);
    if relation == Relation::Equal {
        held_by_some_key(field, &operand)?;
    }
    Ok(Condition::Compared(relation, operand))
}

/// Refuses equality with the zero revision or version, which no key has. A failed condition reports `0.0` for a key
/// that does not exist: a client that sent it back would fail for ever.
fn held_by_some_key(field: &str, operand: &Operand) -> Result<(), Error> {
    let (name, none) = match operand {
        Operand::Modified(Revision::ZERO) => ("mod_revision", "0.0"),
        Operand::Created(Revision::ZERO) => ("create_revision", "0.0"),
        Operand::Version(0) => ("version", "0"),
        Operand::Modified(_) | Operand::Created(_) | Operand::Version(_) | Operand::Value(_) => return Ok(()),
    };
    let message = format!(
        "{field}.{name}: no key has {none}; that a key does not exist is must_not_exist, in a compare exists = false"
    );
    Err(Error::invalid(format!("{field}.{name}"), message))
}

fn from_condition(condition: &Condition) -> (i32, Target) {
    let (relation, operand) = match condition {
        Condition::Absent => return (from_relation(None), Target::Exists(false)),
        Condition::Exists => return (from_relation(None), Target::Exists(true)),
        Condition::Compared(relation, operand) => (Some(*relation), operand.clone()),
    };
    let target = match operand {
        Operand::Modified(revision) => Target::ModRevision(id::from_revision(revision)),
        Operand::Created(revision) => Target::CreateRevision(id::from_revision(revision)),
        Operand::Version(version) => Target::Version(version),
        Operand::Value(value) => Target::Value(value),
    };
    (from_relation(relation), target)
}

fn relation(field: &str, relation: i32) -> Result<Option<Relation>, Error> {
    match v1::Relation::try_from(relation) {
        Ok(v1::Relation::Unspecified) => Ok(None),
        Ok(v1::Relation::Equal) => Ok(Some(Relation::Equal)),
        Ok(v1::Relation::NotEqual) => Ok(Some(Relation::NotEqual)),
        Ok(v1::Relation::Less) => Ok(Some(Relation::Less)),
        Ok(v1::Relation::Greater) => Ok(Some(Relation::Greater)),
        Err(_) => Err(Error::invalid(field, format!("{field}: unknown relation {relation}"))),
    }
}

fn from_relation(relation: Option<Relation>) -> i32 {
    let relation = match relation {
        // Equality is the default.
        None | Some(Relation::Equal) => v1::Relation::Unspecified,
        Some(Relation::NotEqual) => v1::Relation::NotEqual,
        Some(Relation::Less) => v1::Relation::Less,
        Some(Relation::Greater) => v1::Relation::Greater,
    };
    relation.into()
}

/// Finds two compares of one key that can never hold together; returns their positions in the list.
pub fn contradiction(compares: &[(Bytes, Condition)]) -> Option<(usize, usize)> {
    let mut by_key: BTreeMap<&Bytes, Vec<usize>> = BTreeMap::new();
    for (place, (key, condition)) in compares.iter().enumerate() {
        let earlier = by_key.entry(key).or_default();
        let against = |earlier: &&usize| {
            compares
                .get(**earlier)
                .is_some_and(|(_, other)| contradict(other, condition))
        };
        if let Some(earlier) = earlier.iter().find(against) {
            return Some((*earlier, place));
        }
        earlier.push(place);
    }
    None
}

fn contradict(one: &Condition, other: &Condition) -> bool {
    let ((one_is, one), (other_is, other)) = match (one, other) {
        (Condition::Absent, Condition::Absent) => return false,
        (Condition::Absent, _) | (_, Condition::Absent) => return true,
        (Condition::Exists, _) | (_, Condition::Exists) => return false,
        (Condition::Compared(one_is, one), Condition::Compared(other_is, other)) => ((one_is, one), (other_is, other)),
    };
    // The order of the operands; operands of different kinds cannot be compared.
    let Some(ordering) = order(one, other) else {
        return false;
    };
    match (one_is, other_is) {
        (Relation::Equal, relation) => !relation.matches(ordering),
        (relation, Relation::Equal) => !relation.matches(ordering.reverse()),
        (Relation::Less, Relation::Greater) => ordering.is_le(),
        (Relation::Greater, Relation::Less) => ordering.is_ge(),
        (Relation::Less, Relation::Less)
        | (Relation::Greater, Relation::Greater)
        | (Relation::NotEqual, _)
        | (_, Relation::NotEqual) => false,
    }
}

fn order(one: &Operand, other: &Operand) -> Option<Ordering> {
    match (one, other) {
        (Operand::Modified(one), Operand::Modified(other)) | (Operand::Created(one), Operand::Created(other)) => {
            Some(one.cmp(other))
        }
        (Operand::Version(one), Operand::Version(other)) => Some(one.cmp(other)),
        (Operand::Value(one), Operand::Value(other)) => Some(one.cmp(other)),
        (Operand::Modified(_) | Operand::Created(_) | Operand::Version(_) | Operand::Value(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use stead_types::ErrorKind;

    use super::*;

    fn version(relation: Relation, version: u64) -> Condition {
        Condition::Compared(relation, Operand::Version(version))
    }

    #[test]
    fn contradiction_needs_conditions_that_exclude_each_other() {
        use Relation::{Equal, Greater, Less, NotEqual};
        let together = [
            (Condition::Exists, version(Equal, 1)),
            (version(Equal, 1), Condition::value_equals("a")),
            (version(Equal, 1), version(Less, 2)),
            (version(Less, 5), version(Greater, 2)),
            (version(NotEqual, 1), version(Greater, 2)),
            (version(NotEqual, 1), version(Equal, 2)),
            (Condition::Absent, Condition::Absent),
        ];
        let never = [
            (Condition::Exists, Condition::Absent),
            (Condition::Absent, version(NotEqual, 1)),
            (version(Equal, 1), version(Equal, 2)),
            (version(Equal, 2), version(Less, 2)),
            (version(Equal, 2), version(NotEqual, 2)),
            (version(Less, 2), version(Greater, 2)),
            (Condition::value_equals("a"), Condition::value_equals("b")),
        ];
        for (pairs, is_never) in [(&together, false), (&never, true)] {
            for (one, other) in pairs {
                assert_eq!(contradict(one, other), is_never, "{one:?} {other:?}");
                assert_eq!(contradict(other, one), is_never, "{other:?} {one:?}");
            }
        }
    }

    #[test]
    fn equality_with_zero_version_is_refused() {
        let zero = || id::from_revision(Revision::ZERO);
        for (condition, field) in [
            (Message::ModRevision(zero()), "precondition.mod_revision"),
            (Message::CreateRevision(zero()), "precondition.create_revision"),
            (Message::Version(0), "precondition.version"),
        ] {
            let asked = |relation: v1::Relation| {
                precondition(Some(v1::Precondition {
                    condition: Some(condition.clone()),
                    relation: relation.into(),
                }))
            };
            for relation in [v1::Relation::Unspecified, v1::Relation::Equal] {
                let refused = asked(relation).unwrap_err();
                assert_eq!(refused.kind, ErrorKind::Invalid { field: field.into() });
                assert!(refused.message.contains("must_not_exist"), "{}", refused.message);
            }
            asked(v1::Relation::Greater).unwrap();
        }
    }

    #[test]
    fn conditions_of_different_keys_do_not_contradict() {
        let compares = [
            (Bytes::from("a"), Condition::Exists),
            (Bytes::from("b"), Condition::Absent),
            (Bytes::from("a"), version(Relation::Equal, 3)),
            (Bytes::from("a"), version(Relation::Equal, 4)),
        ];
        assert_eq!(contradiction(&compares[..3]), None);
        assert_eq!(contradiction(&compares), Some((2, 3)));
    }
}

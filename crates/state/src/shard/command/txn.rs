//! `Txn`: conditions on keys of a tenant, and the branches to execute if they hold or not.

use bytes::Bytes;
use stead_types::{IdempotencyKey, TenantNumber, limits::TXN_STEPS_MAX};

use super::{
    Condition, Operation, WindowLimits, condition, kind, start, tenant,
    write::{read_idempotency, read_note, request_hash, write_idempotency, write_note},
};
use crate::codec::{Malformed, Reader, Writer};

/// A transaction of one tenant: one branch of it is executed whole, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Tenant of the transaction.
    pub tenant: TenantNumber,
    /// Idempotency key, which identifies a repeat.
    pub idempotency: Option<IdempotencyKey>,
    /// Hash of the branches, so that the use of an idempotency key for another request is detected.
    pub request: u64,
    /// Limits of the idempotency window.
    pub limits: WindowLimits,
    /// Whether the change notes the operations that made its values: proposed from feature level 4 on.
    pub notes_operations: bool,
    /// Conditions and branches.
    pub branches: Branches,
}

/// Conditions and branches of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branches {
    /// Conditions, which select the branch `then` if all hold.
    pub compares: Vec<Comparison>,
    /// Steps if the conditions hold. A key occurs at most once in a branch, so that the order of its steps does not
    /// matter.
    pub then: Vec<Step>,
    /// Steps if they do not hold.
    pub otherwise: Vec<Step>,
}

/// A condition on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The key.
    pub key: Bytes,
    /// Condition on the key.
    pub condition: Condition,
}

/// A step of a branch. Steps read the state before the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads a key.
    Get(Bytes),
    /// Writes a key; it has no condition of its own.
    Write(Operation),
}

const GET: u8 = 1;
const WRITE: u8 = 2;

impl Txn {
    /// Returns the transaction with its hash.
    pub fn new(tenant: TenantNumber, idempotency: Option<IdempotencyKey>, branches: Branches) -> Self {
        Self {
            tenant,
            idempotency,
            request: request_hash(idempotency, |w| branches.encode(w)),
            limits: WindowLimits::default(),
            notes_operations: false,
            branches,
        }
    }

    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::TXN, self.tenant, 48 + self.branches.len());
        write_idempotency(&mut w, self.idempotency, self.request, self.limits);
        self.branches.encode(&mut w);
        write_note(&mut w, self.notes_operations);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let tenant = tenant(r)?;
        let (idempotency, request, limits) = read_idempotency(r)?;
        let branches = Branches::decode(r)?;
        Ok(Self {
            tenant,
            idempotency,
            request,
            limits,
            notes_operations: read_note(r)?,
            branches,
        })
    }
}

impl Branches {
    /// Returns the steps of one branch.
    pub fn branch(&self, succeeded: bool) -> &[Step] {
        if succeeded { &self.then } else { &self.otherwise }
    }

    /// Returns the keys of the conditions and of both branches.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let steps = self.then.iter().chain(&self.otherwise).map(|step| match step {
            Step::Get(key) => key,
            Step::Write(operation) => &operation.key,
        });
        self.compares.iter().map(|compare| &compare.key).chain(steps)
    }

    /// Returns the approximate encoded length.
    fn len(&self) -> usize {
        let compares = self
            .compares
            .iter()
            .map(|compare| compare.key.len() + condition::len(&compare.condition) + 4);
        let steps = self.then.iter().chain(&self.otherwise).map(|step| match step {
            Step::Get(key) => key.len() + 4,
            Step::Write(operation) => operation.len(),
        });
        compares.chain(steps).sum()
    }

    fn encode(&self, w: &mut Writer) {
        w.list(self.compares.iter(), |w, compare| {
            w.bytes(&compare.key);
            condition::encode(Some(&compare.condition), w);
        });
        for branch in [&self.then, &self.otherwise] {
            w.list(branch.iter(), |w, step| match step {
                Step::Get(key) => drop(w.u8(GET).bytes(key)),
                Step::Write(operation) => operation.encode(w.u8(WRITE)),
            });
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let compare = |r: &mut Reader| {
            let key = r.bytes()?;
            let condition = condition::decode(r)?.ok_or_else(|| r.malformed())?;
            Ok(Comparison { key, condition })
        };
        let step = |r: &mut Reader| match r.u8()? {
            GET => Ok(Step::Get(r.bytes()?)),
            WRITE => Ok(Step::Write(Operation::decode(r)?)),
            0 | 3.. => Err(r.malformed()),
        };
        let branches = Self {
            compares: r.list(compare)?,
            then: r.list(step)?,
            otherwise: r.list(step)?,
        };
        // Maintenance removes whole changes, so their number of effects is bounded.
        if branches.then.len().max(branches.otherwise.len()) > TXN_STEPS_MAX {
            return Err(r.malformed());
        }
        Ok(branches)
    }
}

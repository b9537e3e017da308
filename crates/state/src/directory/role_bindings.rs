//! Role bindings: which identities have which roles, beyond what their credentials give them.
//!
//! They are part of every directory view, so that a node decides without asking anybody, and so that a role that was
//! taken away ends what runs with it as soon as the node knows.
//!
//! # Invariants
//!
//! 1. No subject without a role is kept, and no role twice for one subject.

use std::collections::BTreeMap;

use super::{ApplyContext, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, Rejection, text};
use crate::{
    authorization::{AccessRole, Subject},
    codec::{Malformed, Reader, Writer},
};

/// Most subjects that have roles.
pub const SUBJECTS_MAX: usize = 10_000;
/// Most roles of a subject.
pub const SUBJECT_ROLES_MAX: usize = 64;

/// Role that is granted to a subject, or taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleGrant {
    /// The subject.
    pub subject: Subject,
    /// The role.
    pub role: AccessRole,
}

/// All roles of one subject; without roles it is no longer bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleBinding {
    /// The subject.
    pub subject: Subject,
    /// Its roles, in order.
    pub roles: Vec<AccessRole>,
}

/// Roles of all subjects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleBindings(BTreeMap<Subject, Vec<AccessRole>>);

impl RoleBindings {
    /// Returns the roles of a subject.
    pub fn roles(&self, subject: &Subject) -> &[AccessRole] {
        self.0.get(subject).map_or(&[], Vec::as_slice)
    }

    /// Returns all bindings, in the order of subjects, after one of them.
    pub fn after<'a>(&'a self, subject: Option<&'a Subject>) -> impl Iterator<Item = (&'a Subject, &'a [AccessRole])> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = subject.map_or(Unbounded, Excluded);
        let rest = self.0.range::<Subject, _>((from, Unbounded));
        rest.map(|(subject, roles)| (subject, roles.as_slice()))
    }

    pub(super) fn put(&mut self, binding: RoleBinding) {
        if binding.roles.is_empty() {
            self.0.remove(&binding.subject);
        } else {
            self.0.insert(binding.subject, binding.roles);
        }
    }

    pub(super) fn as_changes(&self) -> impl Iterator<Item = DirectoryChange> + '_ {
        self.0.iter().map(|(subject, roles)| {
            DirectoryChange::Roles(RoleBinding {
                subject: subject.clone(),
                roles: roles.clone(),
            })
        })
    }
}

impl RoleGrant {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, self.subject.as_str());
        text::write(w, &self.role.to_string());
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            subject: text::parse(r)?,
            role: text::parse(r)?,
        })
    }
}

impl RoleBinding {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, self.subject.as_str());
        text::write_all(w, self.roles.iter().map(ToString::to_string));
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            subject: text::parse(r)?,
            roles: r.list(text::parse)?,
        })
    }
}

impl Directory {
    /// Gives a subject a role; one that it has already changes nothing.
    pub(super) fn grant_role(&mut self, context: &mut ApplyContext, grant: RoleGrant) -> DirectoryResult {
        self.view.settings().check_roles()?;
        let bindings = self.view.role_bindings();
        let mut roles = bindings.roles(&grant.subject).to_vec();
        let Err(place) = roles.binary_search(&grant.role) else {
            return Ok(DirectoryOutcome::Done);
        };
        let is_full = roles.is_empty() && bindings.0.len() >= SUBJECTS_MAX;
        if is_full || roles.len() >= SUBJECT_ROLES_MAX {
            return Err(Rejection::RoleBindingsFull);
        }
        roles.insert(place, grant.role);
        self.bind(context, grant.subject, roles);
        Ok(DirectoryOutcome::Done)
    }

    /// Takes a role from a subject.
    pub(super) fn revoke_role(&mut self, context: &mut ApplyContext, grant: RoleGrant) -> DirectoryResult {
        self.view.settings().check_roles()?;
        let mut roles = self.view.role_bindings().roles(&grant.subject).to_vec();
        let Ok(place) = roles.binary_search(&grant.role) else {
            return Err(Rejection::RoleNotBound(grant.subject.to_string()));
        };
        roles.remove(place);
        self.bind(context, grant.subject, roles);
        Ok(DirectoryOutcome::Done)
    }

    fn bind(&mut self, context: &mut ApplyContext, subject: Subject, roles: Vec<AccessRole>) {
        let binding = RoleBinding { subject, roles };
        context.push(&mut self.view, DirectoryChange::Roles(binding));
    }
}

#[cfg(test)]
#[path = "role_bindings_test.rs"]
mod role_bindings_test;

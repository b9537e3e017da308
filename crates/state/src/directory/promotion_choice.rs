//! Choice of the new home in a promotion. Pure: from what frozen groups have reported, and who does not answer.
//!
//! # Invariants
//!
//! 1. Without permission to lose writes, what is taken over reaches every history that a group which counts as consulted
//!    holds or once held, and the remote floor; and either every member but silent ones of the old home's own region is
//!    consulted, or the last owner is frozen and its history taken over (protocol.md "Promotion", step 4).
//! 2. A copy that may be damaged counts as not consulted, and is chosen only where losses are accepted and no other group
//!    may be the home.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use stead_types::{Epoch, GroupId, Revision, Sequence, TenantTime};

use super::{FrozenReport, Tenant, TenantPromotion};
use crate::{
    lineage::{Lineage, RevisionStatus},
    shard::{ownership::FreezeReport, record::PreviousRole},
};

/// Input of a choice.
#[derive(Clone, Copy, Debug)]
pub struct Consultation<'a> {
    /// The tenant, whose promotion is in flight and has no new home yet.
    pub tenant: &'a Tenant,
    /// Reports of groups for this promotion.
    pub reports: &'a BTreeMap<GroupId, FrozenReport>,
    /// Groups that do not answer.
    pub silent: &'a BTreeSet<GroupId>,
    /// Members in the region of the recorded home, itself among them: no `REMOTE` acknowledgement rests on them.
    pub home_region: &'a [GroupId],
    /// Groups that may be the new home; where histories are equal the first one is chosen.
    pub targets: &'a [GroupId],
    /// Whether acknowledged writes may be lost.
    pub allow_loss: bool,
}

/// Next step of a promotion for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Waits for the reports of these groups.
    Wait(Vec<GroupId>),
    /// Waits for an operator, or for a group that is silent: why, and what to do.
    Blocked(String),
    /// Lets the chosen group take over what another one has more.
    Pull {
        /// The group with the longest history.
        from: GroupId,
        /// The chosen group.
        to: GroupId,
    },
    /// Makes a group the new home.
    Activate(Box<Chosen>),
}

/// The new home, and what is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The chosen group.
    pub home: GroupId,
    /// Its own lineage.
    pub lineage: Lineage,
    /// Last change that is taken over: all that it holds.
    pub kept: Revision,
    /// Highest tenant time that a frozen group has reported.
    pub time: TenantTime,
    /// Whether the last owner is frozen and its whole history is taken over, so that nothing is lost.
    pub is_drained: bool,
    /// Wall clock at which what is taken over was last proved complete.
    pub fresh_as_of: Option<u64>,
    /// Why this group, and who was not asked, for people.
    pub reason: String,
}

/// Tells whether the fence is in the log of every group that could own an epoch below it: the recorded home and, if that
/// has relinquished, the group that it handed over to. Then no lease has to be waited for.
pub fn is_fenced_by_logs(tenant: &Tenant, reports: &BTreeMap<GroupId, FrozenReport>) -> bool {
    let mut forgotten = forgotten_owners(tenant);
    if !forgotten.all(|group| reports.contains_key(&group)) {
        return false;
    }
    let previous = reports.get(&tenant.home).map(|frozen| frozen.report.previous);
    match previous {
        Some(PreviousRole::Relinquished(to)) => reports.contains_key(&to),
        Some(PreviousRole::Owner | PreviousRole::Follower | PreviousRole::None) => true,
        None => false,
    }
}

/// Returns the groups that may own a tenant without the knowledge of a recovered directory.
fn forgotten_owners(tenant: &Tenant) -> impl Iterator<Item = GroupId> + '_ {
    let promotion = tenant.promoting.as_deref().into_iter();
    promotion.flat_map(TenantPromotion::forgotten_owners)
}

/// Decides what a promotion whose members freeze does next with a tenant.
pub fn choose(of: &Consultation<'_>) -> Choice {
    let waiting: Vec<GroupId> = of.missing().filter(|group| !of.silent.contains(group)).collect();
    if !waiting.is_empty() {
        return Choice::Wait(waiting);
    }
    let candidate = match of.candidate() {
        Ok(candidate) => candidate,
        Err(reason) => return Choice::Blocked(reason),
    };
    let kept = candidate.kept;
    let problems = of.problems(&candidate);
    if !problems.is_empty() && !of.allow_loss {
        return Choice::Blocked(format!(
            "{}: bring back what is missing, or promote again and accept losses",
            problems.join("; ")
        ));
    }
    if let Some(from) = candidate.source {
        return Choice::Pull {
            from,
            to: candidate.group,
        };
    }
    Choice::Activate(Box::new(Chosen {
        home: candidate.group,
        lineage: candidate.report.lineage.clone(),
        kept,
        time: of.frozen().map(|(_, report)| report.time).max().unwrap_or_default(),
        is_drained: of.is_drained() && of.longest(|_| true) <= kept,
        fresh_as_of: of.fresh_as_of(candidate.report),
        reason: of.reason(&candidate, &problems),
    }))
}

/// Group that may be chosen.
struct Candidate<'a> {
    group: GroupId,
    report: &'a FreezeReport,
    /// Group from which it takes over what it lacks first.
    source: Option<GroupId>,
    /// Last change that it will hold then.
    kept: Revision,
}

/// Who is consulted.
impl<'a> Consultation<'a> {
    /// Returns the members that a promotion consults.
    fn consulted(&self) -> impl Iterator<Item = GroupId> + use<'a> {
        let tenant = self.tenant;
        let members = tenant.members.iter().map(|member| member.group);
        members.filter(|group| tenant.consults(*group))
    }

    /// Returns the reports of members.
    fn frozen(&self) -> impl Iterator<Item = (GroupId, &'a FreezeReport)> + use<'a> {
        let reports = self.reports;
        self.consulted()
            .filter_map(|group| Some((group, &reports.get(&group)?.report)))
    }

    fn missing(&self) -> impl Iterator<Item = GroupId> + use<'a> {
        let reports = self.reports;
        self.consulted().filter(|group| !reports.contains_key(group))
    }

    /// Returns the members that count as not consulted: those that have not reported, and those whose copy differs.
    fn unheard(&self) -> impl Iterator<Item = GroupId> + use<'a> {
        let suspect = self.frozen().filter(|(_, report)| report.suspect);
        self.missing().chain(suspect.map(|(group, _)| group))
    }

    /// Tells whether the last owner is frozen: its history is complete.
    fn is_drained(&self) -> bool {
        let is_sound = |group: GroupId| self.reports.get(&group).is_some_and(|frozen| !frozen.report.suspect);
        let home = self.reports.get(&self.tenant.home);
        let is_handed_over_well = match home.map(|home| home.report.previous) {
            Some(PreviousRole::Relinquished(to)) => is_sound(to),
            Some(PreviousRole::Owner | PreviousRole::Follower | PreviousRole::None) => true,
            None => false,
        };
        let may_be_elsewhere = !forgotten_owners(self.tenant).all(is_sound);
        is_handed_over_well && is_sound(self.tenant.home) && !may_be_elsewhere && self.missing_owner().is_none()
    }

    /// Returns an epoch above the recorded one that a group has followed and nobody who has reported has owned, with that
    /// group: a recovered directory has forgotten its owner, which does not answer.
    fn missing_owner(&self) -> Option<(Epoch, GroupId)> {
        let followed = self.frozen().map(|(group, report)| (report.followed, group)).max()?;
        let is_owner = |report: &FreezeReport| {
            let has_owned = matches!(report.previous, PreviousRole::Owner | PreviousRole::Relinquished(_));
            has_owned && report.followed == followed.0
        };
        let has_reported = self.reports.values().any(|frozen| is_owner(&frozen.report));
        Some(followed).filter(|(epoch, _)| *epoch > self.tenant.epoch && !has_reported)
    }

    /// Returns the end of the longest history among some of the sound groups.
    fn longest(&self, is_among: impl Fn(GroupId) -> bool) -> Revision {
        let sound = self
            .frozen()
            .filter(|(group, report)| !report.suspect && is_among(*group));
        sound.map(|(_, report)| report.revision).max().unwrap_or_default()
    }
}

/// Which group is chosen.
impl<'a> Consultation<'a> {
    fn candidate(&self) -> Result<Candidate<'a>, String> {
        let answers = |group: GroupId| !self.silent.contains(&group);
        let longest = self.longest(answers);
        let mut fit = self.fit(false);
        if fit.is_empty() && self.allow_loss {
            fit = self.fit(true);
        }
        // Of equal histories that of the last owner: a recovered directory may record another group as the home.
        fit.sort_by_key(|(_, report)| std::cmp::Reverse((report.revision, owned_epoch(report))));
        let first = fit.first().copied();
        let Some(first) = first else {
            return Err(self.no_target());
        };
        let with_source = |(group, report): (GroupId, &'a FreezeReport)| {
            if report.revision >= longest {
                return Some(Candidate {
                    group,
                    report,
                    source: None,
                    kept: report.revision,
                });
            }
            let sources = self.frozen().filter(|(source, held)| {
                let is_whole = !held.suspect && held.revision == longest;
                is_whole && answers(*source) && has_what_follows(held, report)
            });
            let source = sources.map(|(source, _)| source).next()?;
            Some(Candidate {
                group,
                report,
                source: Some(source),
                kept: longest,
            })
        };
        if let Some(candidate) = fit.iter().copied().find_map(with_source) {
            return Ok(candidate);
        }
        if self.allow_loss {
            let (group, report) = first;
            return Ok(Candidate {
                group,
                report,
                source: None,
                kept: report.revision,
            });
        }
        Err(format!(
            "the history of {} ends before {longest}, and the group that reaches it no longer keeps what is missing: \
             promote again and name that group's region, or accept losses",
            groups(fit.iter().map(|(group, _)| *group))
        ))
    }

    /// Returns the groups that may be the new home and can be, the better first: frozen, and not known to be silent.
    fn fit(&self, suspect: bool) -> Vec<(GroupId, &'a FreezeReport)> {
        let reports = self.reports;
        let answering = self.targets.iter().filter(|group| !self.silent.contains(group));
        let members = answering.filter(|group| self.tenant.consults(**group));
        let frozen = members.filter_map(|group| Some((*group, &reports.get(group)?.report)));
        frozen.filter(|(_, report)| report.suspect == suspect).collect()
    }

    /// Says why no group can be chosen.
    fn no_target(&self) -> String {
        if self.targets.is_empty() {
            return "no member is in a region that may be the new home: name the old home's region and promote again, or \
                    bring it back"
                .to_owned();
        }
        let is_suspect = |group: &GroupId| self.reports.get(group).is_some_and(|frozen| frozen.report.suspect);
        let (suspect, other): (Vec<GroupId>, Vec<GroupId>) = self.targets.iter().partition(|group| is_suspect(group));
        let mut text = String::new();
        if !other.is_empty() {
            let _ = write!(text, "{} may be the new home and did not answer", groups(other));
        }
        if !suspect.is_empty() {
            let and = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{and}the copy of {} differs from the home's", groups(suspect));
        }
        text + ": bring one back, or promote again and name another region"
    }
}

/// Bounds of the loss.
impl Consultation<'_> {
    /// Returns why acknowledged writes may be lost with a candidate that only a permission allows.
    fn problems(&self, candidate: &Candidate<'_>) -> Vec<String> {
        let kept = candidate.kept;
        let mut problems = Vec::new();
        let is_excused = |group: &GroupId| self.home_region.contains(group);
        let is_drained = self.is_drained();
        let unheard: Vec<GroupId> = self.unheard().filter(|group| !is_excused(group)).collect();
        if !is_drained && !unheard.is_empty() {
            problems.push(format!(
                "{} did not answer, or with a copy that differs, and acknowledged writes may rest on that",
                groups(unheard)
            ));
        }
        if let Some((epoch, group)) = self.missing_owner() {
            problems.push(format!(
                "group {} has followed epoch {epoch}, which the directory has forgotten, and the group that owned it did not \
                 answer",
                group.get()
            ));
        }
        let longest = self.longest(|_| true);
        if kept < longest {
            problems.push(format!(
                "a history up to {longest} was reported by a group from which it cannot be taken over, and {kept} is the \
                 end of the chosen one's"
            ));
        }
        let held = self.frozen().map(|(group, report)| (report.forked_up_to, group)).max();
        if let Some((forked, group)) = held.filter(|(forked, _)| *forked > kept.sequence()) {
            problems.push(format!(
                "group {} holds changes up to sequence {forked} in a fork only, and {kept} is the end of the \
                 longest history",
                group.get()
            ));
        }
        let floor = self.tenant.remote_floor.sequence();
        if kept.sequence() < floor {
            problems.push(format!(
                "writes up to sequence {floor} were acknowledged at REMOTE by members that are gone, and {kept} is the \
                 end of the longest history"
            ));
        }
        let was_proved = candidate.source.is_some() || self.fresh_as_of(candidate.report).is_some();
        if kept.sequence() == Sequence::ZERO && !is_drained && !was_proved {
            problems.push(format!(
                "group {} holds nothing of the tenant, and nothing proves that there was nothing",
                candidate.group.get()
            ));
        }
        problems
    }

    /// Returns the latest time at which a copy that ends within what is kept was proved fresh: what was acknowledged
    /// until then is kept.
    fn fresh_as_of(&self, chosen: &FreezeReport) -> Option<u64> {
        let is_kept = |report: &FreezeReport| {
            let is_on = chosen.lineage.status_of(report.revision) == RevisionStatus::OnLineage;
            report.revision <= chosen.revision && is_on
        };
        let frozen = self.reports.values();
        let proved = frozen.filter(|frozen| !frozen.report.suspect && is_kept(&frozen.report));
        proved.filter_map(|frozen| frozen.fresh_as_of).max()
    }

    /// Says why a group was chosen, and who was not asked.
    fn reason(&self, candidate: &Candidate<'_>, problems: &[String]) -> String {
        let count = self.frozen().count();
        let mut text = format!(
            "group {} holds the history up to {} of {count} frozen groups",
            candidate.group.get(),
            candidate.kept
        );
        if self.is_drained() {
            text += "; the last owner is frozen, so nothing is lost";
        }
        let excused: Vec<GroupId> = self
            .unheard()
            .filter(|group| self.home_region.contains(group))
            .collect();
        if !excused.is_empty() {
            let _ = write!(
                text,
                "; {} in the old home's region did not answer, and no REMOTE acknowledgement rests on them",
                groups(excused)
            );
        }
        if !problems.is_empty() {
            let _ = write!(text, "; losses were accepted although {}", problems.join("; "));
        }
        text
    }
}

/// Returns the epoch that a group owned before it froze, if it owned one.
fn owned_epoch(report: &FreezeReport) -> Option<Epoch> {
    (report.previous == PreviousRole::Owner).then_some(report.followed)
}

/// Tells whether a frozen group still keeps all that another one lacks, on the same line of history.
fn has_what_follows(source: &FreezeReport, target: &FreezeReport) -> bool {
    let end = target.revision.sequence();
    source.retention_floor.sequence() <= end && end <= target.lineage.fork_point(&source.lineage)
}

/// Names groups.
fn groups(groups: impl IntoIterator<Item = GroupId>) -> String {
    let names: Vec<String> = groups.into_iter().map(|group| group.get().to_string()).collect();
    match &names[..] {
        [one] => format!("group {one}"),
        many => format!("groups {}", many.join(", ")),
    }
}

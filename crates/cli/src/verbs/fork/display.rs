//! Output of forks.

use std::fmt::Write;

use serde_json::{Value, json};
use stead_client::{AtForkPoint, ForkClass, ForkEntry, ForkInfo, Item, Revision};

use crate::{
    output::{OutputTable, display_bytes, size},
    verbs::kv,
};

const VALUE_SHOWN_MAX: usize = 40;
const KEY_SHOWN_MAX: usize = 80;

/// Text on the facts that a fork that is a whole copy lacks.
pub(super) const WHOLE_COPY: &str = "the fork is a whole copy: values at the fork point are not known, and changes below \
                                     the copy's retention floor are not listed";

/// Returns a table of forks.
pub(super) fn forks(forks: &[ForkInfo]) -> OutputTable {
    let columns = &[
        "TENANT", "GROUP", "REGION", "FORK", "CHANGES", "REPLAYED", "BYTES", "FIRST", "LAST", "STATE", "POINT",
    ];
    let mut table = OutputTable::new(columns, 10);
    for fork in forks {
        let tenant = match fork.tenant.as_str() {
            "" => format!("(number {})", fork.tenant_number),
            name => name.to_owned(),
        };
        let cells = vec![
            tenant,
            fork.group.to_string(),
            fork.region.clone(),
            fork.number.to_string(),
            fork.changes.to_string(),
            fork.replayed.to_string(),
            size(fork.bytes),
            fork.first
                .map_or_else(|| "unknown".to_owned(), |first| first.to_string()),
            fork.last.to_string(),
            state(fork).to_owned(),
            fork.fork_point.to_string(),
        ];
        table.push(cells, self::fork(fork));
    }
    table
}

fn state(fork: &ForkInfo) -> &'static str {
    match (fork.is_filling, fork.is_whole_copy) {
        (true, _) => "being moved",
        (false, true) => "whole copy",
        (false, false) => "complete",
    }
}

/// Returns a fork as JSON.
pub(super) fn fork(fork: &ForkInfo) -> Value {
    json!({
        "tenant": fork.tenant,
        "tenantNumber": fork.tenant_number.to_string(),
        "group": fork.group,
        "region": fork.region,
        "number": fork.number,
        "forkPoint": fork.fork_point.to_string(),
        "firstRevision": fork.first.map(|first| first.to_string()),
        "lastRevision": fork.last.to_string(),
        "changes": fork.changes.to_string(),
        "replayed": fork.replayed.to_string(),
        "bytes": fork.bytes.to_string(),
        "wholeCopy": fork.is_whole_copy,
        "filling": fork.is_filling,
    })
}

/// Returns a table of keys of a fork.
pub(super) fn entries(entries: &[ForkEntry]) -> OutputTable {
    let columns = &[
        "KEY",
        "AT FORK POINT",
        "CUT",
        "LIVE",
        "LIVE REVISION",
        "CLASS",
        "CHANGE",
        "TIME",
    ];
    let mut table = OutputTable::new(columns, 6);
    let value = |item: &Item| display_bytes(&item.value, VALUE_SHOWN_MAX);
    for entry in entries {
        let before = match &entry.at_fork_point {
            AtForkPoint::Known(before) => before.as_ref().map_or_else(|| "(none)".to_owned(), value),
            AtForkPoint::Unknown => "(unknown)".to_owned(),
        };
        let live = |shown: fn(&Item) -> String| match (&entry.live, entry.class) {
            (Some(live), _) => shown(live),
            (None, ForkClass::Unknown) => "(unknown)".to_owned(),
            (None, _) => "(none)".to_owned(),
        };
        let cells = vec![
            display_bytes(&entry.key, KEY_SHOWN_MAX),
            before,
            entry.cut.as_ref().map_or_else(|| "(deleted)".to_owned(), value),
            live(|live| display_bytes(&live.value, VALUE_SHOWN_MAX)),
            live(|live| live.modified.to_string()),
            class(entry.class).to_lowercase(),
            entry.revision.to_string(),
            humantime::format_rfc3339_millis(entry.time).to_string(),
        ];
        table.push(cells, self::entry(entry));
    }
    table
}

pub(super) fn class(class: ForkClass) -> &'static str {
    match class {
        ForkClass::Unknown => "UNKNOWN",
        ForkClass::Absorbed => "ABSORBED",
        ForkClass::Expired => "EXPIRED",
        ForkClass::Clean => "CLEAN",
        ForkClass::Conflict => "CONFLICT",
        ForkClass::Commutative => "COMMUTATIVE",
        ForkClass::Uncertain => "UNCERTAIN",
        ForkClass::Replayed => "REPLAYED",
    }
}

/// Returns a key of a fork as JSON.
pub(super) fn entry(entry: &ForkEntry) -> Value {
    let item = |item: &Option<Item>| item.as_ref().map(kv::item);
    let (before, is_unknown) = match &entry.at_fork_point {
        AtForkPoint::Known(before) => (item(before), false),
        AtForkPoint::Unknown => (None, true),
    };
    json!({
        "revision": entry.revision.to_string(),
        "time": humantime::format_rfc3339_millis(entry.time).to_string(),
        "key": crate::output::base64(&entry.key),
        "atForkPoint": before,
        "atForkPointUnknown": is_unknown,
        "cut": item(&entry.cut),
        "live": item(&entry.live),
        "class": class(entry.class),
        "foundRevision": entry.found.map(|found| found.to_string()),
    })
}

/// Returns what is to be known about keys that were shown.
pub(super) fn notes(fork: &ForkInfo, live: Option<Revision>, is_cut: bool) -> String {
    let mut text = match live {
        Some(live) => format!(
            "LIVE is the copy in group {} as of {live}; the home may have more.",
            fork.group
        ),
        None => format!(
            "Group {} has no data of the tenant yet: LIVE and CLASS are not known. Try again later.",
            fork.group
        ),
    };
    if fork.is_whole_copy {
        let _ = write!(text, "\nNote: {WHOLE_COPY}.");
    }
    if is_cut {
        text.push_str("\nThere are more keys: raise --limit, or use `stead fork export`.");
    }
    let (tenant, group, number) = (&fork.tenant, fork.group, fork.number);
    let _ = write!(
        text,
        "\nTo write again what is clean or commutative, each change once:\
         \n  stead fork replay {tenant} --group {group} --fork {number} --dry-run\
         \nTo write a value by hand, unless the key has changed meanwhile:\
         \n  stead kv put {tenant} KEY VALUE --if-revision LIVE-REVISION   (--if-absent where LIVE is none)"
    );
    text
}

/// Returns what a discard of a fork loses.
pub(super) fn loss(fork: &ForkInfo) -> String {
    format!(
        "{} changes of tenant {} that a promotion has cut, up to {}, would be lost for ever: fork {} in group {}, {}",
        fork.changes,
        fork.tenant,
        fork.last,
        fork.number,
        fork.group,
        size(fork.bytes)
    )
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::output::Output;

    fn info() -> ForkInfo {
        ForkInfo {
            tenant: "acme".into(),
            tenant_number: 1,
            group: 3,
            region: "us-east".into(),
            number: 5,
            fork_point: 7,
            first: None,
            last: "1.9".parse().unwrap(),
            changes: 2,
            bytes: 100,
            is_whole_copy: false,
            is_filling: false,
            replayed: 1,
        }
    }

    #[test]
    fn notes_name_replay_and_what_is_unknown() {
        let live = "2.12".parse().ok();
        let complete = notes(&info(), live, false);
        let replay = "stead fork replay acme --group 3 --fork 5 --dry-run";
        assert!(complete.contains(replay), "{complete}");
        assert!(
            complete.contains("stead kv put acme KEY VALUE --if-revision"),
            "{complete}"
        );
        assert!(
            !complete.contains("more keys") && !complete.contains("whole copy"),
            "{complete}"
        );
        let whole = ForkInfo {
            is_whole_copy: true,
            ..info()
        };
        let whole = notes(&whole, None, true);
        for words in ["no data of the tenant yet", "retention floor", "more keys"] {
            assert!(whole.contains(words), "{words}: {whole}");
        }
    }

    #[test]
    fn absent_unknown_and_deleted_values_are_told_apart() {
        let entry = ForkEntry {
            revision: "1.8".parse().unwrap(),
            time: SystemTime::UNIX_EPOCH,
            key: "k".into(),
            at_fork_point: AtForkPoint::Unknown,
            cut: None,
            live: None,
            class: ForkClass::Conflict,
            found: None,
        };
        let value = self::entry(&entry);
        assert_eq!(
            (&value["atForkPointUnknown"], &value["cut"]),
            (&true.into(), &Value::Null)
        );
        assert_eq!(value["class"], "CONFLICT");
        let known = ForkEntry {
            at_fork_point: AtForkPoint::Known(None),
            class: ForkClass::Unknown,
            ..entry
        };
        assert_eq!(self::entry(&known)["atForkPointUnknown"], false);
        assert!(entries(&[known]).print(Output::Table).is_ok());
        assert!(loss(&info()).contains("2 changes of tenant acme"), "{}", loss(&info()));
    }
}

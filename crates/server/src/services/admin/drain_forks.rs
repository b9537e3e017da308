//! Forks in a region that is to be drained: who drains a region mostly takes its nodes away, and forks are there only.

use std::{collections::BTreeSet, sync::Arc};

use stead_api::proto::admin::v1::{Fork, ListForksRequest};
use stead_types::{Error, ErrorKind};

use super::fork::ForkService;
use crate::host::Host;

/// Most forks that are looked at.
const FORKS_ASKED_MAX: i32 = 1_000;

/// Returns why a region is not drained without consent: groups that answer hold forks there.
pub(super) async fn refusal(host: &Arc<Host>, region: &str) -> Option<Error> {
    let request = ListForksRequest {
        region: region.to_owned(),
        page_size: FORKS_ASKED_MAX,
        ..ListForksRequest::default()
    };
    // A region that is unknown or has no group is refused by the drain itself.
    let listed = ForkService::new(host.clone()).list(request, false).await.ok()?;
    refusal_of(region, &listed.forks, !listed.next_page_token.is_empty())
}

fn refusal_of(region: &str, forks: &[Fork], has_more: bool) -> Option<Error> {
    let tenants: BTreeSet<&str> = forks.iter().map(|fork| fork.tenant.as_str()).collect();
    let first = tenants.first()?;
    let message = format!(
        "region {region} holds forks, {}{}, of tenant {first}{}: changes that a promotion has cut are on its nodes and nowhere \
         else, and are lost if these are taken away. Replay, export or discard them, `stead fork list --of {region}`; or drain \
         with --keep-forks, and they stay where they are",
        if has_more { "at least " } else { "" },
        forks.len(),
        match tenants.len() {
            1 => String::new(),
            more => format!(" and {} more", more - 1),
        }
    );
    Some(Error::new(ErrorKind::Conflict, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_forks_and_consequence() {
        let fork = |tenant: &str| Fork {
            tenant: tenant.to_owned(),
            ..Fork::default()
        };
        assert_eq!(refusal_of("eu-west", &[], false), None);
        let refused = refusal_of("eu-west", &[fork("acme"), fork("acme"), fork("other")], true).unwrap();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        for words in [
            "holds forks, at least 3, of tenant acme and 1 more",
            "are lost if these are taken away",
            "stead fork list --of eu-west",
            "--keep-forks",
        ] {
            assert!(refused.message.contains(words), "{}", refused.message);
        }
    }
}

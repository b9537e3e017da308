//! Options that a promotion lacks: found by trying them.

use std::collections::{BTreeMap, BTreeSet};

use stead_state::directory::{DirectoryView, PromotionFacts, PromotionForecast, PromotionRequest};
use stead_types::{Durability, TenantNumber};

use super::promotion_message::blocker;

/// Options that a promotion may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    replace: bool,
    durability: bool,
    is_down: bool,
    allow_loss: bool,
}

impl Options {
    /// Returns every set of options that a request lacks, smaller ones first and those with a loss last.
    pub(super) fn sets(request: &PromotionRequest) -> Vec<Self> {
        let mut sets: Vec<Self> = (1_u8..16)
            .map(|bits| Self {
                replace: bits & 1 != 0,
                durability: bits & 2 != 0,
                is_down: bits & 4 != 0,
                allow_loss: bits & 8 != 0,
            })
            .filter(|set| {
                let has = set.replace && request.replace
                    || set.durability && request.durability.is_some()
                    || set.is_down && request.is_down
                    || set.allow_loss && request.allow_loss;
                !has
            })
            .collect();
        sets.sort_by_key(|set| (set.allow_loss, set.names().len()));
        sets
    }

    /// Adds them to a request.
    pub(super) fn added_to(self, request: &PromotionRequest) -> PromotionRequest {
        PromotionRequest {
            replace: self.replace || request.replace,
            durability: request.durability.or(self.durability.then_some(Durability::Region)),
            is_down: self.is_down || request.is_down,
            allow_loss: self.allow_loss || request.allow_loss,
            ..request.clone()
        }
    }

    /// Returns those of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            replace: self.replace || other.replace,
            durability: self.durability || other.durability,
            is_down: self.is_down || other.is_down,
            allow_loss: self.allow_loss || other.allow_loss,
        }
    }

    /// Returns them as on the command line.
    pub(super) fn names(&self) -> Vec<String> {
        let named = [
            (self.replace, "--replace"),
            (self.durability, "--durability region"),
            (self.is_down, "--is-down"),
            (self.allow_loss, "--allow-loss"),
        ];
        let named = named.into_iter().filter(|(is_set, _)| *is_set);
        named.map(|(_, name)| name.to_owned()).collect()
    }
}

/// Returns, for each tenant that is blocked, the fewest options with which it would be promoted: by trying them.
pub(super) fn needed_options(
    view: &DirectoryView,
    request: &PromotionRequest,
    facts: &PromotionFacts,
    forecast: &PromotionForecast,
) -> BTreeMap<TenantNumber, Options> {
    let blocked = forecast.items.iter().filter(|(_, item)| blocker(item).is_some());
    let mut blocked: BTreeSet<TenantNumber> = blocked.map(|(number, _)| *number).collect();
    let mut needed = BTreeMap::new();
    for options in Options::sets(request) {
        if blocked.is_empty() {
            break;
        }
        let Ok(tried) = PromotionForecast::of(view, &options.added_to(request), facts) else {
            continue;
        };
        for (number, item) in &tried.items {
            if blocker(item).is_none() && blocked.remove(number) {
                needed.insert(*number, options);
            }
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use stead_state::directory::PromotionSelection;

    use super::*;

    fn request() -> PromotionRequest {
        PromotionRequest {
            selection: PromotionSelection::Region("eu-west".parse().unwrap()),
            to: None,
            allow_loss: false,
            replace: false,
            durability: None,
            graceful_ms: 0,
            is_down: false,
            unreachable: Vec::new(),
        }
    }

    #[test]
    fn fewest_options_are_tried_first_and_loss_last() {
        let sets = Options::sets(&request());
        assert_eq!(sets.len(), 15);
        assert_eq!(sets[0].names().len(), 1);
        let first_with_loss = sets.iter().position(|set| set.allow_loss).unwrap();
        assert_eq!(sets[first_with_loss].names(), ["--allow-loss"]);
        assert!(sets[first_with_loss..].iter().all(|set| set.allow_loss));
        let given = PromotionRequest {
            allow_loss: true,
            ..request()
        };
        assert!(Options::sets(&given).iter().all(|set| !set.allow_loss), "it is given");
    }
}

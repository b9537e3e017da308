//! Requests of `PromotionService`, read into those of the directory.

use std::{collections::BTreeSet, time::Duration};

use stead_api::{
    convert,
    proto::{
        admin::v1::{PromoteRequest, promote_request},
        v1::Durability as DurabilityMessage,
    },
};
use stead_state::directory::{PromotionRequest, PromotionSelection};
use stead_types::{Durability, Error, GroupId};

/// Most tenants that one promotion names.
const NAMED_MAX: usize = 10_000;
/// Longest time in which planned moves are tried first.
const GRACEFUL_MAX: Duration = Duration::from_secs(3_600);

/// Reads a promotion.
pub(super) fn promotion(request: &PromoteRequest) -> Result<PromotionRequest, Error> {
    convert::directory::reason(&request.reason)?;
    let to = match request.to.as_str() {
        "" => None,
        name => Some(convert::id::region("to", name)?),
    };
    Ok(PromotionRequest {
        selection: selection(request)?,
        to,
        allow_loss: request.allow_loss,
        replace: request.replace,
        durability: durability(request.durability)?,
        graceful_ms: graceful_ms(request)?,
        is_down: request.is_down,
        unreachable: Vec::new(),
    })
}

fn selection(request: &PromoteRequest) -> Result<PromotionSelection, Error> {
    use promote_request::Selection;
    Ok(match &request.selection {
        Some(Selection::Region(region)) => PromotionSelection::Region(convert::id::region("region", region)?),
        Some(Selection::Group(0)) => {
            let message = "group: 0 is the directory, which is home to no tenant: name a group of a region";
            return Err(Error::invalid("group", message));
        }
        Some(Selection::Group(group)) => PromotionSelection::Group(GroupId::new(*group)),
        Some(Selection::Tenants(names)) => {
            let count = names.tenants.len();
            if count == 0 || count > NAMED_MAX {
                let message = format!("tenants.tenants: {count} tenants; name 1 to {NAMED_MAX} at a time");
                return Err(Error::invalid("tenants.tenants", message));
            }
            let mut seen = BTreeSet::new();
            let mut read = Vec::with_capacity(count);
            for (at, name) in names.tenants.iter().enumerate() {
                let field = format!("tenants.tenants[{at}]");
                let name = convert::id::tenant(&field, name)?;
                if !seen.insert(name.clone()) {
                    let message = format!("{field}: {name} is named twice: name each tenant once");
                    return Err(Error::invalid(field, message));
                }
                read.push(name);
            }
            PromotionSelection::Tenants(read)
        }
        None => {
            let message = "selection: name a region, a group, or tenants";
            return Err(Error::invalid("selection", message));
        }
    })
}

fn durability(number: i32) -> Result<Option<Durability>, Error> {
    match convert::read::durability("durability", number)? {
        None | Some(DurabilityMessage::Unspecified) => Ok(None),
        Some(DurabilityMessage::Region) => Ok(Some(Durability::Region)),
        Some(DurabilityMessage::Remote) => {
            let message = "durability: REMOTE is what a tenant without a follower elsewhere cannot have: leave it out, or \
                           accept REGION";
            Err(Error::invalid("durability", message))
        }
    }
}

fn graceful_ms(request: &PromoteRequest) -> Result<u64, Error> {
    let Some(graceful_for) = request.graceful_for else {
        return Ok(0);
    };
    let invalid = || {
        let message = format!(
            "graceful_for: planned moves are tried for 1 ms to {} s",
            GRACEFUL_MAX.as_secs()
        );
        Error::invalid("graceful_for", message)
    };
    let graceful_for = convert::read::to_duration(graceful_for).ok_or_else(invalid)?;
    if graceful_for > GRACEFUL_MAX || graceful_for < Duration::from_millis(1) {
        return Err(invalid());
    }
    u64::try_from(graceful_for.as_millis()).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use stead_types::ErrorKind;

    use super::*;

    fn request() -> PromoteRequest {
        PromoteRequest {
            selection: Some(promote_request::Selection::Region("eu-west".into())),
            ..PromoteRequest::default()
        }
    }

    fn field(request: &PromoteRequest) -> String {
        let error = promotion(request).unwrap_err();
        let ErrorKind::Invalid { field } = error.kind else {
            panic!("{}", error.message)
        };
        field
    }

    #[test]
    fn promotion_without_options_loses_nothing_and_forces_at_once() {
        let read = promotion(&request()).unwrap();
        assert_eq!(read.selection, PromotionSelection::Region("eu-west".parse().unwrap()));
        assert!(!read.allow_loss && !read.replace && read.durability.is_none());
        assert_eq!((read.to, read.graceful_ms), (None, 0));
    }

    #[test]
    fn wrong_field_is_named() {
        let with = |change: fn(&mut PromoteRequest)| {
            let mut request = request();
            change(&mut request);
            field(&request)
        };
        assert_eq!(with(|request| request.selection = None), "selection");
        assert_eq!(with(|request| request.to = "X".into()), "to");
        assert_eq!(with(|request| request.durability = 9), "durability");
        let remote = |request: &mut PromoteRequest| request.durability = DurabilityMessage::Remote.into();
        assert_eq!(with(remote), "durability");
        let directory = |request: &mut PromoteRequest| request.selection = Some(promote_request::Selection::Group(0));
        assert_eq!(with(directory), "group");
        let long = |request: &mut PromoteRequest| {
            request.graceful_for = Some(convert::read::duration(Duration::from_secs(3_601)));
        };
        assert_eq!(with(long), "graceful_for");
        let zero = |request: &mut PromoteRequest| request.graceful_for = Some(convert::read::duration(Duration::ZERO));
        assert_eq!(with(zero), "graceful_for");
    }

    #[test]
    fn each_tenant_is_named_once() {
        let named = |names: &[&str]| PromoteRequest {
            selection: Some(promote_request::Selection::Tenants(promote_request::Names {
                tenants: names.iter().map(ToString::to_string).collect(),
            })),
            ..PromoteRequest::default()
        };
        assert_eq!(field(&named(&[])), "tenants.tenants");
        assert_eq!(field(&named(&["a", "B"])), "tenants.tenants[1]");
        assert_eq!(field(&named(&["a", "b", "a"])), "tenants.tenants[2]");
        assert!(promotion(&named(&["a", "b"])).is_ok());
    }
}

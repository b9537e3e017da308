//! Requests of `BulkMoveService`, read into those of the directory.

use stead_api::{
    convert,
    proto::admin::v1::{
        self as admin, DrainRegionRequest, FailbackRegionRequest, MoveTenantsRequest, RehearseRegionRequest,
        UndrainRegionRequest, move_tenant_request::Source, move_tenants_request,
    },
};
use stead_state::directory::{
    AT_ONCE_MAX, BulkMoveRequest, NAMED_MOVES_MAX, NamedMove, Pace, Selection, SourceAfterMove, WAVE_BUDGET_MS,
};
use stead_types::{Error, RegionName, TenantName};

/// Reads a drain. The region follows afterwards unless the request says otherwise: what is drained mostly comes back.
pub(super) fn drain(request: &DrainRegionRequest) -> Result<BulkMoveRequest, Error> {
    convert::directory::reason(&request.reason)?;
    let to = match request.to.as_str() {
        "" => None,
        name => Some(convert::id::region("to", name)?),
    };
    let region = convert::id::region("region", &request.region)?;
    Ok(BulkMoveRequest {
        selection: Selection::Drain { region, to },
        named: Vec::new(),
        source: match source(request.source)? {
            Source::Unspecified | Source::Follow => SourceAfterMove::Follow,
            Source::Leave => SourceAfterMove::Leave,
        },
        pace: pace(request.pace.as_ref())?,
    })
}

/// Reads an undrain.
pub(super) fn undrain(request: &UndrainRegionRequest) -> Result<BulkMoveRequest, Error> {
    convert::directory::reason(&request.reason)?;
    let region = convert::id::region("region", &request.region)?;
    Ok(BulkMoveRequest {
        selection: Selection::Undrain {
            region,
            returns: !request.open_only,
        },
        named: Vec::new(),
        source: SourceAfterMove::Follow,
        pace: pace(request.pace.as_ref())?,
    })
}

/// Reads a failback.
pub(super) fn failback(request: &FailbackRegionRequest) -> Result<BulkMoveRequest, Error> {
    convert::directory::reason(&request.reason)?;
    let region = convert::id::region("region", &request.region)?;
    Ok(BulkMoveRequest {
        selection: Selection::Failback { region },
        named: Vec::new(),
        source: SourceAfterMove::Follow,
        pace: pace(request.pace.as_ref())?,
    })
}

/// Rehearsal that is asked for, before anything is known of its tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskedRehearsal {
    pub(super) region: RegionName,
    pub(super) tenants: Vec<TenantName>,
    pub(super) to: Option<RegionName>,
    pub(super) pace: Pace,
}

/// Reads a rehearsal.
pub(super) fn rehearsal(request: &RehearseRegionRequest) -> Result<AskedRehearsal, Error> {
    convert::directory::reason(&request.reason)?;
    let count = request.tenants.len();
    if count == 0 || count > NAMED_MOVES_MAX {
        let message = format!("tenants: {count} tenants; name 1 to {NAMED_MOVES_MAX} at a time");
        return Err(Error::invalid("tenants", message));
    }
    let read = |(at, name): (usize, &String)| convert::id::tenant(&format!("tenants[{at}]"), name);
    Ok(AskedRehearsal {
        region: convert::id::region("region", &request.region)?,
        tenants: request.tenants.iter().enumerate().map(read).collect::<Result<_, _>>()?,
        to: match request.to.as_str() {
            "" => None,
            name => Some(convert::id::region("to", name)?),
        },
        pace: pace(request.pace.as_ref())?,
    })
}

/// Reads a move of tenants by label, by name, or within a region.
pub(super) fn moves(request: &MoveTenantsRequest) -> Result<BulkMoveRequest, Error> {
    use move_tenants_request::Selection as Selected;
    convert::directory::reason(&request.reason)?;
    let mut named = Vec::new();
    let selection = match &request.selection {
        Some(Selected::Label(label)) => {
            let one = [(label.key.clone(), label.value.clone())].into();
            convert::directory::labels(&one)?;
            Selection::Label {
                key: label.key.clone(),
                value: label.value.clone(),
                to: convert::id::region("label.to", &label.to)?,
            }
        }
        Some(Selected::Named(list)) => {
            named = read_named(&list.tenants)?;
            Selection::Named
        }
        Some(Selected::SpreadRegion(region)) => Selection::Spread {
            region: convert::id::region("spread_region", region)?,
        },
        None => {
            let message = "selection: name a label, a list of tenants, or a region whose tenants are spread";
            return Err(Error::invalid("selection", message));
        }
    };
    Ok(BulkMoveRequest {
        selection,
        named,
        source: match source(request.source)? {
            Source::Unspecified => SourceAfterMove::Policy,
            Source::Follow => SourceAfterMove::Follow,
            Source::Leave => SourceAfterMove::Leave,
        },
        pace: pace(request.pace.as_ref())?,
    })
}

fn read_named(named: &[move_tenants_request::Named]) -> Result<Vec<NamedMove>, Error> {
    if named.is_empty() || named.len() > NAMED_MOVES_MAX {
        let message = format!(
            "named.tenants: {} tenants; name 1 to {NAMED_MOVES_MAX} at a time",
            named.len()
        );
        return Err(Error::invalid("named.tenants", message));
    }
    let read = |(at, one): (usize, &move_tenants_request::Named)| {
        let to: RegionName = convert::id::region(&format!("named.tenants[{at}].to"), &one.to)?;
        Ok(NamedMove {
            name: convert::id::tenant(&format!("named.tenants[{at}].tenant"), &one.tenant)?,
            to,
        })
    };
    named.iter().enumerate().map(read).collect()
}

fn source(source: i32) -> Result<Source, Error> {
    Source::try_from(source).map_err(|_| {
        let message = format!("source: {source} is not a value that this node knows");
        Error::invalid("source", message)
    })
}

/// Reads a pace; what is not set has its default.
pub(super) fn pace(pace: Option<&admin::Pace>) -> Result<Pace, Error> {
    let default = Pace::default();
    let Some(asked) = pace else {
        return Ok(default);
    };
    let or = |asked: u32, default: u32| if asked == 0 { default } else { asked };
    let at_once = or(asked.at_once, default.at_once);
    if at_once > AT_ONCE_MAX {
        let message = format!("pace.at_once: {at_once} tenants; at most {AT_ONCE_MAX} move at once");
        return Err(Error::invalid("pace.at_once", message));
    }
    let canaries = or(asked.canaries, default.canaries.min(at_once));
    if canaries > at_once {
        let message = format!("pace.canaries: {canaries} tenants; at most as many as move at once, {at_once}");
        return Err(Error::invalid("pace.canaries", message));
    }
    let invalid = || {
        let (min, max) = (WAVE_BUDGET_MS.start() / 1_000, WAVE_BUDGET_MS.end() / 1_000);
        let message = format!("pace.wave_budget: a wave has {min} to {max} seconds");
        Error::invalid("pace.wave_budget", message)
    };
    let wave_budget_ms = match asked.wave_budget {
        None => default.wave_budget_ms,
        Some(budget) => {
            let budget = convert::read::to_duration(budget).ok_or_else(invalid)?;
            let ms = u64::try_from(budget.as_millis()).map_err(|_| invalid())?;
            Some(ms).filter(|ms| WAVE_BUDGET_MS.contains(ms)).ok_or_else(invalid)?
        }
    };
    Ok(Pace {
        canaries,
        at_once,
        wave_budget_ms,
    })
}

#[cfg(test)]
mod tests {
    use stead_types::ErrorKind;

    use super::*;

    fn field(error: Error) -> String {
        let message = error.message;
        let ErrorKind::Invalid { field } = error.kind else {
            panic!("{message}")
        };
        field
    }

    #[test]
    fn drain_follows_and_has_default_pace() {
        let request = DrainRegionRequest {
            region: "eu-west".into(),
            ..DrainRegionRequest::default()
        };
        let read = drain(&request).unwrap();
        assert_eq!((read.source, read.pace), (SourceAfterMove::Follow, Pace::default()));
        let to = DrainRegionRequest {
            to: "X".into(),
            ..request.clone()
        };
        assert_eq!(field(drain(&to).unwrap_err()), "to");
        let source = DrainRegionRequest { source: 9, ..request };
        assert_eq!(field(drain(&source).unwrap_err()), "source");
    }

    #[test]
    fn rehearsal_names_region_tenants_and_target() {
        let request = RehearseRegionRequest {
            region: "eu-west".into(),
            tenants: vec!["a".into()],
            ..RehearseRegionRequest::default()
        };
        assert_eq!(rehearsal(&request).unwrap().to, None);
        let wrong = |change: fn(&mut RehearseRegionRequest)| {
            let mut request = request.clone();
            change(&mut request);
            field(rehearsal(&request).unwrap_err())
        };
        assert_eq!(wrong(|request| request.tenants.clear()), "tenants");
        assert_eq!(wrong(|request| request.tenants.push("B".into())), "tenants[1]");
        assert_eq!(wrong(|request| request.to = "X".into()), "to");
        assert_eq!(wrong(|request| request.region = "X".into()), "region");
        let failback = failback(&FailbackRegionRequest::default());
        assert_eq!(field(failback.unwrap_err()), "region");
    }

    #[test]
    fn pace_out_of_bounds_is_refused() {
        let refused = |asked: admin::Pace| field(pace(Some(&asked)).unwrap_err());
        let many = admin::Pace {
            at_once: 1_001,
            ..admin::Pace::default()
        };
        assert_eq!(refused(many), "pace.at_once");
        let large = admin::Pace {
            canaries: 6,
            at_once: 5,
            wave_budget: None,
        };
        assert_eq!(refused(large), "pace.canaries");
        let short = admin::Pace {
            wave_budget: Some(convert::read::duration(std::time::Duration::from_millis(999))),
            ..admin::Pace::default()
        };
        assert_eq!(refused(short), "pace.wave_budget");
        let one = admin::Pace {
            at_once: 1,
            ..admin::Pace::default()
        };
        assert_eq!(pace(Some(&one)).unwrap().canaries, 1);
    }

    #[test]
    fn move_names_its_selection_and_each_wrong_tenant() {
        assert_eq!(field(moves(&MoveTenantsRequest::default()).unwrap_err()), "selection");
        let named = |tenants: Vec<(&str, &str)>| {
            let named = tenants.into_iter().map(|(tenant, to)| move_tenants_request::Named {
                tenant: tenant.into(),
                to: to.into(),
            });
            let list = move_tenants_request::NamedList {
                tenants: named.collect(),
            };
            moves(&MoveTenantsRequest {
                selection: Some(move_tenants_request::Selection::Named(list)),
                ..MoveTenantsRequest::default()
            })
        };
        assert_eq!(field(named(Vec::new()).unwrap_err()), "named.tenants");
        let wrong = named(vec![("a", "us-east"), ("B", "us-east")]).unwrap_err();
        assert_eq!(field(wrong), "named.tenants[1].tenant");
        let read = named(vec![("a", "us-east")]).unwrap();
        assert_eq!((read.named.len(), read.source), (1, SourceAfterMove::Policy));
    }
}

//! Regions of `stead dev` and the round trips between them.

use std::{path::Path, time::Duration};

use stead_testing::cluster::{Plan, Ports, Region};

use crate::exit::{Code, CommandError};

/// Names and jurisdictions, in the order of their ports.
pub(super) const REGIONS: [(&str, &str); 3] = [("us-east", "US"), ("eu-west", "EU"), ("ap-south", "IN")];
const ROUND_TRIPS: [(&str, &str, u64); 3] = [
    ("us-east", "eu-west", 80),
    ("us-east", "ap-south", 200),
    ("eu-west", "ap-south", 120),
];
/// One node of each three runs on sled, so that digests compare two engines.
const ENGINES: [&str; 3] = ["fjall", "fjall", "sled"];
const NODES: usize = 3;

/// Round trip as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoundTrip {
    /// Pair of regions; absent: all pairs.
    pair: Option<(String, String)>,
    round_trip: Duration,
}

impl std::str::FromStr for RoundTrip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || "written us-east:eu-west=90ms, or 50ms for all pairs".to_owned();
        let (pair, time) = match text.split_once('=') {
            Some((pair, time)) => (Some(pair.split_once(':').ok_or_else(form)?), time),
            None => (None, text),
        };
        let round_trip = humantime::parse_duration(time).map_err(|_| form())?;
        Ok(Self {
            pair: pair.map(|(a, b)| (a.to_owned(), b.to_owned())),
            round_trip,
        })
    }
}

/// Parses a region of the command line: `us-east`, `us-east:3`, `us-east:3:US`.
pub(super) fn region(text: &str) -> Result<Region, String> {
    let form = || "written us-east, us-east:3 for three nodes, or us-east:3:US with its jurisdiction".to_owned();
    let mut parts = text.splitn(3, ':');
    let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(form)?;
    let nodes = parts.next().map_or(Ok(1), |nodes| nodes.parse().map_err(|_| form()))?;
    let mut region = Region::new(name, nodes);
    if let Some(jurisdiction) = parts.next() {
        region.jurisdiction = jurisdiction.to_owned();
    }
    Ok(region)
}

/// Returns the default regions, three nodes each.
pub(super) fn regions() -> Vec<Region> {
    let region = |(name, jurisdiction): (&str, &str)| Region {
        name: name.into(),
        jurisdiction: jurisdiction.into(),
        nodes: NODES,
    };
    REGIONS.map(region).into()
}

/// Returns the plan of the cluster: the round trips between custom regions are zero unless the command line sets them.
pub(super) fn plan(
    data: &Path,
    ports: Ports,
    own: Option<&[Region]>,
    changes: &[RoundTrip],
) -> Result<Plan, CommandError> {
    let binary = std::env::current_exe()
        .map_err(|error| CommandError::new(Code::Failed, format!("this program's own path is not known: {error}")))?;
    let regions = own.map_or_else(regions, <[Region]>::to_vec);
    let mut round_trips = match own {
        Some(regions) => next_door(regions),
        None => ROUND_TRIPS
            .map(|(a, b, millis)| (a.to_owned(), b.to_owned(), Duration::from_millis(millis)))
            .into(),
    };
    for change in changes {
        set(&mut round_trips, change)?;
    }
    Ok(Plan {
        binary,
        data: data.to_owned(),
        regions,
        round_trips,
        ports,
        engines: ENGINES.map(Into::into).into(),
    })
}

fn next_door(regions: &[Region]) -> Vec<(String, String, Duration)> {
    let pairs = regions.iter().enumerate().flat_map(|(at, from)| {
        let others = regions[at + 1..].iter();
        others.map(|to| (from.name.clone(), to.name.clone(), Duration::ZERO))
    });
    pairs.collect()
}

fn set(
    round_trips: &mut [(String, String, Duration)],
    RoundTrip { pair, round_trip }: &RoundTrip,
) -> Result<(), CommandError> {
    let is_meant = |a: &String, b: &String| pair.as_ref().is_none_or(|(c, d)| (a, b) == (c, d) || (b, a) == (c, d));
    let mut meant: Vec<_> = round_trips.iter_mut().filter(|(a, b, _)| is_meant(a, b)).collect();
    if let (Some((a, b)), true) = (pair, meant.is_empty()) {
        let known: Vec<String> = round_trips.iter().map(|(a, b, _)| format!("{a}:{b}")).collect();
        let why = format!("--rtt {a}:{b}: the pairs of regions are {}", known.join(", "));
        return Err(CommandError::new(Code::Usage, why));
    }
    meant.iter_mut().for_each(|(_, _, known)| *known = *round_trip);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(own: Option<&[Region]>, texts: &[&str]) -> Result<Vec<u128>, CommandError> {
        let changes: Vec<RoundTrip> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let plan = plan(Path::new("x"), Ports::Any, own, &changes)?;
        Ok(plan.round_trips.into_iter().map(|trip| trip.2.as_millis()).collect())
    }

    #[test]
    fn round_trip_is_set_for_pair_or_all() {
        assert_eq!(changed(None, &[]).unwrap(), [80, 200, 120]);
        assert_eq!(changed(None, &["eu-west:us-east=90ms"]).unwrap(), [90, 200, 120]);
        assert_eq!(changed(None, &["10ms", "us-east:ap-south=1s"]).unwrap(), [10, 1000, 10]);
        let refused = changed(None, &["eu:us=1ms"]).unwrap_err();
        assert!(
            refused.text().contains("us-east:eu-west, us-east:ap-south"),
            "{refused:?}"
        );
        assert!("fast".parse::<RoundTrip>().is_err());
    }

    #[test]
    fn custom_regions_have_zero_round_trip_by_default() {
        let own = ["tokyo", "us-east:3", "eu-west:1:DE"].map(|text| region(text).unwrap());
        let nodes: Vec<usize> = own.iter().map(|region| region.nodes).collect();
        assert_eq!(nodes, [1, 3, 1]);
        let laws: Vec<&str> = own.iter().map(|region| region.jurisdiction.as_str()).collect();
        assert_eq!(laws, ["TOKYO", "US", "DE"]);
        assert_eq!(changed(Some(&own), &["eu-west:tokyo=220ms"]).unwrap(), [0, 220, 0]);
        assert!(region("us-east:many").is_err());
        assert!(region(":3").is_err());
        assert!(changed(Some(&own[..1]), &["us-east:eu-west=1ms"]).is_err());
    }
}

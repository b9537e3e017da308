//! The regions of `stead dev` and how far apart they are.

use std::{path::Path, time::Duration};

use stead_testing::cluster::{Plan, Ports, Region};

use crate::exit::{Code, Failure};

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

/// A round trip as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoundTrip {
    /// Between these two; absent: between all.
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
        let known = |name: &str| REGIONS.iter().any(|(region, _)| *region == name);
        if let Some((a, b)) = pair
            && (!known(a) || !known(b) || a == b)
        {
            return Err(format!("the regions are {}", REGIONS.map(|(name, _)| name).join(", ")));
        }
        let round_trip = humantime::parse_duration(time).map_err(|_| form())?;
        Ok(Self {
            pair: pair.map(|(a, b)| (a.to_owned(), b.to_owned())),
            round_trip,
        })
    }
}

/// Returns what to start.
pub(super) fn plan(data: &Path, base_port: u16, changes: &[RoundTrip]) -> Result<Plan, Failure> {
    let binary = std::env::current_exe()
        .map_err(|error| Failure::new(Code::Failed, format!("this program's own path is not known: {error}")))?;
    let region = |(name, jurisdiction): (&str, &str)| Region {
        name: name.into(),
        jurisdiction: jurisdiction.into(),
        nodes: NODES,
    };
    let mut round_trips: Vec<(String, String, Duration)> = ROUND_TRIPS
        .map(|(a, b, millis)| (a.to_owned(), b.to_owned(), Duration::from_millis(millis)))
        .into();
    for RoundTrip { pair, round_trip } in changes {
        for (a, b, known) in &mut round_trips {
            let meant = pair
                .as_ref()
                .is_none_or(|(c, d)| (&*a, &*b) == (c, d) || (&*a, &*b) == (d, c));
            if meant {
                *known = *round_trip;
            }
        }
    }
    Ok(Plan {
        binary,
        data: data.to_owned(),
        regions: REGIONS.map(region).into(),
        round_trips,
        ports: Ports::From(base_port),
        engines: ENGINES.map(Into::into).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_changed_for_one_pair_or_for_all() {
        let changed = |texts: &[&str]| {
            let changes: Vec<RoundTrip> = texts.iter().map(|text| text.parse().unwrap()).collect();
            plan(Path::new("x"), 1, &changes)
                .unwrap()
                .round_trips
                .into_iter()
                .map(|trip| trip.2.as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(changed(&[]), [80, 200, 120]);
        assert_eq!(changed(&["eu-west:us-east=90ms"]), [90, 200, 120]);
        assert_eq!(changed(&["10ms", "us-east:ap-south=1s"]), [10, 1000, 10]);
        assert!(
            "eu:us=1ms"
                .parse::<RoundTrip>()
                .unwrap_err()
                .contains("us-east, eu-west, ap-south")
        );
        assert!("fast".parse::<RoundTrip>().is_err());
    }
}

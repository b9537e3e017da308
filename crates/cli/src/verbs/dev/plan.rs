//! Regions of `stead dev` and the round trips between them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

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
/// Name of the witness's region.
const WITNESS: &str = "witness";

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

/// Regions as the command line names them: how many of the demo's, or one with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegionChoice {
    /// So many of the demo's.
    Count(usize),
    /// This one.
    Named(Region),
}

impl std::str::FromStr for RegionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(count) => Ok(Self::Count(count)),
            Err(_) => region(text).map(Self::Named),
        }
    }
}

/// Regions of a cluster, and the round trips between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Regions {
    regions: Vec<Region>,
    round_trips: Vec<(String, String, Duration)>,
}

impl Default for Regions {
    /// Returns the three of the demo.
    fn default() -> Self {
        Self {
            regions: REGIONS.map(demo_region).into(),
            round_trips: demo_round_trips(),
        }
    }
}

impl Regions {
    /// Returns these regions, with a round trip of each pair.
    pub(super) fn new(regions: Vec<Region>, round_trips: Vec<(String, String, Duration)>) -> Self {
        Self { regions, round_trips }
    }

    /// Returns those that were chosen; the demo's if none was. `names` tells whether others than these may be named.
    pub(super) fn chosen(choices: Option<&[RegionChoice]>, names: bool) -> Result<Self, CommandError> {
        let usage = |why: &str| CommandError::new(Code::Usage, format!("--regions: {why}"));
        let mut named = Vec::new();
        for choice in choices.unwrap_or_default() {
            match choice {
                RegionChoice::Count(3) if choices.is_some_and(|all| all.len() == 1) => return Ok(Self::default()),
                RegionChoice::Count(2) if choices.is_some_and(|all| all.len() == 1) => return Ok(Self::two()),
                RegionChoice::Count(_) => {
                    return Err(usage("2, with a witness, or 3 of the demo's; else name them all"));
                }
                RegionChoice::Named(_) if !names => return Err(usage("other regions than the demo's need --json")),
                RegionChoice::Named(region) => named.push(region.clone()),
            }
        }
        match named.is_empty() {
            true => Ok(Self::default()),
            false => Ok(Self {
                round_trips: next_door(&named),
                regions: named,
            }),
        }
    }

    /// Returns these regions with the demo's distances, and this one between pairs that the demo does not have.
    pub(super) fn with_distances(regions: Vec<Region>, otherwise: Duration) -> Self {
        let demo = demo_round_trips();
        let distance = |a: &String, b: &String| {
            let of_pair = |(from, to, _): &&(String, String, Duration)| [from, to] == [a, b] || [to, from] == [a, b];
            demo.iter()
                .find(of_pair)
                .map_or(otherwise, |(_, _, round_trip)| *round_trip)
        };
        let pairs = next_door(&regions).into_iter();
        let round_trips = pairs
            .map(|(a, b, _)| (a.clone(), b.clone(), distance(&a, &b)))
            .collect();
        Self { regions, round_trips }
    }

    /// Returns the number of nodes of each region, and that of pairs with a distance.
    #[cfg(test)]
    pub(super) fn shape(&self) -> (Vec<usize>, usize) {
        let nodes = self.regions.iter().map(|region| region.nodes);
        (nodes.collect(), self.round_trips.len())
    }

    /// Returns the round trip between two regions.
    #[cfg(test)]
    pub(super) fn round_trip(&self, a: &str, b: &str) -> Option<Duration> {
        let is_pair = |(from, to, _): &&(String, String, Duration)| [from, to] == [a, b] || [to, from] == [a, b];
        self.round_trips.iter().find(is_pair).map(|(_, _, time)| *time)
    }

    /// Returns the first two of the demo, and a witness, as far from both as they are from each other.
    fn two() -> Self {
        let [one, other, _] = REGIONS.map(demo_region);
        let witness = Region {
            witness: true,
            ..Region::new(WITNESS, 1)
        };
        let of_two =
            |(a, b, _): &(String, String, Duration)| [a, b].iter().all(|end| **end == one.name || **end == other.name);
        let mut round_trips: Vec<_> = demo_round_trips().into_iter().filter(of_two).collect();
        let between = round_trips
            .first()
            .map(|(_, _, round_trip)| *round_trip)
            .unwrap_or_default();
        round_trips.extend([&one, &other].map(|region| (region.name.clone(), WITNESS.to_owned(), between)));
        Self {
            regions: vec![one, other, witness],
            round_trips,
        }
    }
}

/// Returns a region of the demo, with three nodes.
fn demo_region((name, jurisdiction): (&str, &str)) -> Region {
    Region {
        jurisdiction: jurisdiction.into(),
        ..Region::new(name, NODES)
    }
}

fn demo_round_trips() -> Vec<(String, String, Duration)> {
    ROUND_TRIPS
        .map(|(a, b, millis)| (a.to_owned(), b.to_owned(), Duration::from_millis(millis)))
        .into()
}

/// Returns the plan of the cluster: the round trips between named regions are zero unless the command line sets them.
pub(super) fn plan(
    data: &Path,
    ports: Ports,
    of: Regions,
    changes: &[RoundTrip],
    tls: bool,
) -> Result<Plan, CommandError> {
    let binary = std::env::current_exe()
        .map_err(|error| CommandError::new(Code::Failed, format!("this program's own path is not known: {error}")))?;
    let Regions {
        regions,
        mut round_trips,
    } = of;
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
        groups_per_region: 1,
        tls,
        asks_for_credentials: tls,
    })
}

/// Returns the plan of another cluster of the same kind, with other regions, in a folder of its own.
pub(super) fn like(plan: &Plan, data: PathBuf, of: Regions) -> Plan {
    Plan {
        data,
        regions: of.regions,
        round_trips: of.round_trips,
        ..plan.clone()
    }
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
        let own: Option<Vec<_>> = own.map(|own| own.iter().cloned().map(RegionChoice::Named).collect());
        let plan = plan(
            Path::new("x"),
            Ports::Any,
            Regions::chosen(own.as_deref(), true)?,
            &changes,
            true,
        )?;
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
    fn two_regions_have_witness_and_names_need_json() {
        let chosen = |texts: &[&str], names| {
            let choices: Vec<RegionChoice> = texts.iter().map(|text| text.parse().unwrap()).collect();
            Regions::chosen(Some(&choices), names)
        };
        let two = chosen(&["2"], false).unwrap();
        let regions: Vec<_> = two
            .regions
            .iter()
            .map(|region| (&region.name[..], region.nodes, region.witness))
            .collect();
        assert_eq!(
            regions,
            [("us-east", 3, false), ("eu-west", 3, false), ("witness", 1, true)]
        );
        let round_trips: Vec<u128> = two.round_trips.iter().map(|trip| trip.2.as_millis()).collect();
        assert_eq!(round_trips, [80, 80, 80]);
        assert_eq!(chosen(&["3"], false).unwrap().regions.len(), 3);
        for (texts, words) in [
            (&["4"][..], "2, with a witness, or 3"),
            (&["2", "tokyo"], "name them all"),
            (&["tokyo"], "need --json"),
        ] {
            let refused = chosen(texts, false).unwrap_err();
            assert!(refused.text().contains(words), "{refused:?}");
        }
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

//! File of a topology: regions, the round trips between them, and groups.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use stead_testing::cluster::Region;
use stead_types::{Jurisdiction, RegionName};

use crate::verbs::dev::plan::Regions;

/// Most regions: one more would reach into the ports of another listener.
const REGIONS_MAX: usize = 10;
/// Most nodes of a region.
const NODES_MAX: usize = 10;
/// Most tenant groups of a region.
const GROUPS_MAX: usize = 16;
/// Longest round trip: that of `cluster.directory_rtt_max`.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

/// TopologyTable of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologyTable {
    /// Round trip between regions for which no link says another.
    #[serde(default = "no_time")]
    round_trip: String,
    /// Tenant groups that a region begins with.
    #[serde(default = "one")]
    groups_per_region: usize,
    #[serde(default)]
    region: Vec<RegionTable>,
    #[serde(default)]
    link: Vec<LinkTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionTable {
    name: String,
    /// Absent: the first part of the name.
    #[serde(default)]
    jurisdiction: Option<String>,
    #[serde(default = "one")]
    nodes: usize,
    /// Whether its nodes only vote in the directory.
    #[serde(default)]
    witness: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkTable {
    between: [String; 2],
    round_trip: String,
}

fn one() -> usize {
    1
}

fn no_time() -> String {
    "0ms".to_owned()
}

/// Cluster that a file describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::verbs::dev) struct Described {
    pub(in crate::verbs::dev) regions: Regions,
    pub(in crate::verbs::dev) groups_per_region: usize,
}

/// Parses a file's text.
///
/// # Errors
///
/// The field, its value, and the limit.
pub(super) fn parse(text: &str) -> Result<Described, String> {
    let content: TopologyTable = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    if !(1..=REGIONS_MAX).contains(&content.region.len()) {
        return Err(format!(
            "region: {} regions are not within 1 to {REGIONS_MAX}",
            content.region.len()
        ));
    }
    if !(1..=GROUPS_MAX).contains(&content.groups_per_region) {
        let groups = content.groups_per_region;
        return Err(format!("groups_per_region: {groups} is not within 1 to {GROUPS_MAX}"));
    }
    let entries = content.region.into_iter().enumerate();
    let regions = entries
        .map(|(at, entry)| region(at, entry))
        .collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeSet::new();
    if let Some(twice) = regions.iter().find(|region| !names.insert(&region.name)) {
        return Err(format!("region: two are named {}", twice.name));
    }
    if regions.iter().all(|region| region.witness) {
        return Err("region: all are witnesses: at least one region holds tenants".to_owned());
    }
    let otherwise = round_trip("round_trip", &content.round_trip)?;
    let round_trips = round_trips(&regions, &content.link, otherwise)?;
    Ok(Described {
        regions: Regions::new(regions, round_trips),
        groups_per_region: content.groups_per_region,
    })
}

fn region(at: usize, entry: RegionTable) -> Result<Region, String> {
    let key = |field: &str| format!("region[{at}].{field}");
    let name = entry.name.parse::<RegionName>();
    name.map_err(|error| format!("{}: {error}", key("name")))?;
    if !(1..=NODES_MAX).contains(&entry.nodes) {
        return Err(format!(
            "{}: {} is not within 1 to {NODES_MAX}",
            key("nodes"),
            entry.nodes
        ));
    }
    let mut region = Region {
        witness: entry.witness,
        ..Region::new(&entry.name, entry.nodes)
    };
    if let Some(jurisdiction) = entry.jurisdiction {
        let parsed = jurisdiction.parse::<Jurisdiction>();
        parsed.map_err(|error| format!("{}: {error}", key("jurisdiction")))?;
        region.jurisdiction = jurisdiction;
    }
    Ok(region)
}

/// Returns the round trip of each pair of regions.
fn round_trips(
    regions: &[Region],
    links: &[LinkTable],
    otherwise: Duration,
) -> Result<Vec<(String, String, Duration)>, String> {
    let mut pairs = Vec::new();
    for (at, from) in regions.iter().enumerate() {
        let others = regions[at + 1..].iter();
        pairs.extend(others.map(|to| (from.name.clone(), to.name.clone(), otherwise)));
    }
    let mut named = BTreeSet::new();
    for (at, link) in links.iter().enumerate() {
        let key = |field: &str| format!("link[{at}].{field}");
        let [a, b] = &link.between;
        let pair = pairs
            .iter()
            .position(|(from, to, _)| (from, to) == (a, b) || (from, to) == (b, a));
        let Some(pair) = pair else {
            let known: Vec<&str> = regions.iter().map(|region| region.name.as_str()).collect();
            let known = known.join(", ");
            return Err(format!(
                "{}: {a} and {b} are not two of the regions {known}",
                key("between")
            ));
        };
        if !named.insert(pair) {
            return Err(format!("{}: {a} and {b} have a link already", key("between")));
        }
        pairs[pair].2 = round_trip(&key("round_trip"), &link.round_trip)?;
    }
    Ok(pairs)
}

fn round_trip(key: &str, text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text);
    let time = parsed.map_err(|_| format!("{key}: {text:?} is no time: write it as 80ms"))?;
    if time > ROUND_TRIP_MAX {
        return Err(format!("{key}: {text} is above {} s", ROUND_TRIP_MAX.as_secs()));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example of docs/topologies.md.
    fn documented() -> String {
        let text = include_str!("../../../../../../docs/topologies.md");
        let (_, block) = text.split_once("```toml\n").unwrap();
        block.split("```").next().unwrap().to_owned()
    }

    #[test]
    fn documented_example_is_read() {
        let described = parse(&documented()).unwrap();
        assert_eq!(described.groups_per_region, 2);
        assert_eq!(described.regions.shape(), (vec![3, 1, 1], 3));
        assert_eq!(
            described.regions.round_trip("paris", "tokyo"),
            Some(Duration::from_millis(220))
        );
        assert_eq!(
            described.regions.round_trip("zurich", "paris"),
            Some(Duration::from_millis(30))
        );
    }

    #[test]
    fn refusal_names_field_value_and_limit() {
        const EU: &str = "[[region]]\nname = \"eu\"\n";
        const US: &str = "[[region]]\nname = \"us\"\n";
        let link =
            |a: &str, b: &str, time: &str| format!("[[link]]\nbetween = [\"{a}\", \"{b}\"]\nround_trip = \"{time}\"\n");
        for (text, words) in [
            (String::new(), "region: 0 regions are not within 1 to 10"),
            (EU.repeat(11), "region: 11 regions are not within 1 to 10"),
            (EU.repeat(2), "region: two are named eu"),
            (format!("{EU}nodes = 11"), "region[0].nodes: 11 is not within 1 to 10"),
            (format!("{EU}{US}nodes = 0"), "region[1].nodes: 0 is not within 1 to 10"),
            (format!("{EU}jurisdiction = \"\""), "region[0].jurisdiction: "),
            ("[[region]]\nname = \"E U\"".to_owned(), "region[0].name: "),
            (format!("{EU}witness = true"), "all are witnesses"),
            (format!("{EU}node = 3"), "unknown field `node`"),
            (
                format!("groups_per_region = 17\n{EU}"),
                "groups_per_region: 17 is not within 1 to 16",
            ),
            (format!("round_trip = \"far\"\n{EU}"), "round_trip: \"far\" is no time"),
            (
                format!("{EU}{US}{}", link("eu", "us", "6s")),
                "link[0].round_trip: 6s is above 5 s",
            ),
            (
                format!("{EU}{US}{}", link("eu", "ap", "1s")),
                "link[0].between: eu and ap are not two of the regions eu, us",
            ),
            (
                format!("{EU}{US}{}", link("eu", "eu", "1s")),
                "link[0].between: eu and eu are not two",
            ),
            (
                format!("{EU}{US}{}{}", link("eu", "us", "1s"), link("us", "eu", "1s")),
                "link[1].between: us and eu have a link already",
            ),
        ] {
            let refused = parse(&text).unwrap_err();
            assert!(refused.contains(words), "{words} is not in: {refused}");
        }
    }
}

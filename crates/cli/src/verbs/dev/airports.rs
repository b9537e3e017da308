//! Acceptance step on real data: 28,298 airports, each country a tenant whose home is where most of its airports lie.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use stead_client::{Consistency, ReadOptions, ScanOptions, Tenant};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    check::Verdict,
    plan::REGIONS,
    world::{WAIT_TIMEOUT, World},
};

/// Concurrent writes from each region.
const CALLERS: usize = 64;
/// Tenants that are created concurrently.
const CREATES_IN_FLIGHT_MAX: usize = 8;
const PAGE: u32 = 10_000;
/// Interval between two reads of a follower that has not caught up.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Tenant of the data set: its expected content, in the order of keys.
#[derive(Debug, Default)]
pub(super) struct Country {
    pub(super) airports: BTreeMap<String, Bytes>,
    by_region: HashMap<&'static str, usize>,
}

impl Country {
    /// Returns the region with most of its airports; of equals, the first region in the order of the plan.
    pub(super) fn home(&self) -> &'static str {
        let count = |region: &&str| self.by_region.get(region).copied().unwrap_or_default();
        let best = REGIONS
            .iter()
            .map(|(region, _)| *region)
            .rev()
            .max_by_key(|region| count(region));
        best.unwrap_or(REGIONS[0].0)
    }
}

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let countries = parse(&read()?)?;
    let before = link_bytes_total(world).await;
    create_tenants(world, &countries).await?;
    let (rows, took) = load(world, &countries).await?;
    let loaded = Instant::now();
    let different = compare(world, &countries).await?;
    let homes = REGIONS.map(|(region, _)| {
        countries
            .values()
            .filter(|country| country.home() == region)
            .count()
            .to_string()
    });
    let mut verdict = Verdict::default()
        .note(format!(
            "{rows} rows, {} tenants ({})",
            countries.len(),
            homes.join(" + ")
        ))
        .note(format!("{:.0} rows/s", rows as f64 / took.as_secs_f64()))
        .none("tenants differ", different)
        .note(format!(
            "equal everywhere {:.1} s later",
            loaded.elapsed().as_secs_f64()
        ));
    for (link, (after, raw)) in &link_bytes(world, &countries).await {
        let wire = after - before.get(link).map_or(0, |(bytes, _)| *bytes);
        verdict = verdict.note(format!(
            "{link}: raw {:.1} MB, wire {:.1} MB",
            megabytes(*raw),
            megabytes(wire)
        ));
    }
    Ok(verdict)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Reads the data from the working directory, or from the source tree of the build.
pub(super) fn read() -> anyhow::Result<String> {
    let built = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/airports.csv"));
    let paths = [PathBuf::from("tests/data/airports.csv"), built];
    let found = paths
        .iter()
        .find(|path| path.exists())
        .context("tests/data/airports.csv is not here: run it in the project's folder")?;
    Ok(std::fs::read_to_string(found)?)
}

/// Parses the records; a value is its line.
pub(super) fn parse(text: &str) -> anyhow::Result<BTreeMap<String, Country>> {
    let mut countries: BTreeMap<String, Country> = BTreeMap::new();
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let headers = reader.headers()?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|header| header == name)
            .with_context(|| format!("no column {name}"))
    };
    let (icao, country, zone) = (column("icao")?, column("country")?, column("tz")?);
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        let start = record.position().map_or(0, csv::Position::byte) as usize;
        let line = text[start..].trim_start().lines().next().unwrap_or_default();
        let of = countries.entry(record[country].to_lowercase()).or_default();
        *of.by_region.entry(region(&record[zone])).or_default() += 1;
        of.airports
            .insert(record[icao].to_owned(), Bytes::copy_from_slice(line.as_bytes()));
    }
    Ok(countries)
}

/// Returns the region of a time zone by its first part.
fn region(zone: &str) -> &'static str {
    match zone.split('/').next().unwrap_or_default() {
        "America" => "us-east",
        "Europe" | "Africa" | "Atlantic" | "Arctic" => "eu-west",
        _ => "ap-south",
    }
}

async fn create_tenants(world: &mut World, countries: &BTreeMap<String, Country>) -> anyhow::Result<()> {
    let mut clients = HashMap::new();
    for (region, _) in REGIONS {
        clients.insert(region, world.client(region).await?);
    }
    let mut creates = JoinSet::new();
    for (name, country) in countries {
        if creates.len() >= CREATES_IN_FLIGHT_MAX {
            creates.join_next().await.context("the set of creations is empty")???;
        }
        let client = clients[country.home()].clone();
        creates.spawn(super::world::ensure_tenant(client, name.clone(), country.home()));
    }
    while let Some(one) = creates.join_next().await {
        one??;
    }
    Ok(())
}

/// Writes all airports, each from its home region; returns their number and the duration.
async fn load(world: &mut World, countries: &BTreeMap<String, Country>) -> anyhow::Result<(usize, Duration)> {
    let mut work: HashMap<&str, Vec<(Tenant, String, Bytes)>> = HashMap::new();
    for (name, country) in countries {
        let tenant = world.client(country.home()).await?.tenant(name)?;
        let of_home = work.entry(country.home()).or_default();
        of_home.extend(
            country
                .airports
                .iter()
                .map(|(key, value)| (tenant.clone(), key.clone(), value.clone())),
        );
    }
    let rows = work.values().map(Vec::len).sum();
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for airports in work.into_values() {
        let share = airports.len().div_ceil(CALLERS).max(1);
        for airports in airports.chunks(share).map(<[_]>::to_vec) {
            callers.spawn(async move {
                for (tenant, key, value) in airports {
                    tenant
                        .put(key.clone(), value)
                        .await
                        .with_context(|| format!("{} {key}", tenant.name()))?;
                }
                anyhow::Ok(())
            });
        }
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok((rows, started.elapsed()))
}

/// Compares the content of each region with the loaded data; returns the number of tenants that differ somewhere in the
/// end.
async fn compare(world: &mut World, countries: &BTreeMap<String, Country>) -> anyhow::Result<usize> {
    let mut different = 0;
    let deadline = Instant::now() + WAIT_TIMEOUT;
    for (name, country) in countries {
        let mut held = Vec::new();
        for (region, _) in REGIONS {
            let tenant = world.client(region).await?.tenant(name)?;
            held.extend(equal(&tenant, &country.airports, deadline).await?);
        }
        // Equal values under unequal revisions are not equal replicas.
        let equal = held.len() == REGIONS.len() && held.windows(2).all(|pair| pair[0] == pair[1]);
        different += usize::from(!equal);
    }
    Ok(different)
}

/// Waits until a tenant holds exactly these airports; returns its digest, `None` if it does not in time.
async fn equal(tenant: &Tenant, airports: &BTreeMap<String, Bytes>, deadline: Instant) -> anyhow::Result<Option<u64>> {
    loop {
        let (held, digest) = contents(tenant).await?;
        if held == *airports {
            return Ok(Some(digest));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Returns keys with values, and a digest of them with their revisions, as this region's nodes hold them.
pub(super) async fn contents(tenant: &Tenant) -> anyhow::Result<(BTreeMap<String, Bytes>, u64)> {
    let read = ReadOptions::at(Consistency::Local);
    let mut scan = ScanOptions {
        page_size: PAGE,
        read,
        ..ScanOptions::default()
    };
    let (mut airports, mut digest) = (BTreeMap::new(), Fnv::default());
    loop {
        let page = tenant.scan(&scan).await?;
        for item in page.items {
            digest.add(&item.key);
            digest.add(&item.value);
            digest.add(&item.created.to_u64().to_be_bytes());
            digest.add(&item.modified.to_u64().to_be_bytes());
            airports.insert(String::from_utf8_lossy(&item.key).into_owned(), item.value);
        }
        match page.next {
            Some(next) => scan.page_token = next,
            None => return Ok((airports, digest.0)),
        }
    }
}

/// FNV-1a hash over fields with their lengths.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, field: &[u8]) {
        let bytes = field.len().to_be_bytes();
        for byte in bytes.iter().chain(field) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Returns the bytes that have passed each link.
async fn link_bytes_total(world: &World) -> BTreeMap<String, (u64, u64)> {
    link_bytes(world, &BTreeMap::new()).await
}

/// Returns the bytes that have passed each link, and the least bytes for it: keys and values of the tenants with a home
/// on either side.
async fn link_bytes(world: &World, countries: &BTreeMap<String, Country>) -> BTreeMap<String, (u64, u64)> {
    let cluster = world.cluster.lock().await;
    let size = |country: &Country| {
        country
            .airports
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum::<u64>()
    };
    let links = cluster.links().map(|(from, to, link)| {
        let either = countries
            .values()
            .filter(|country| [from, to].contains(&country.home()));
        let raw = either.map(size).sum();
        (format!("{from} - {to}"), (link.there.bytes() + link.back.bytes(), raw))
    });
    links.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn airport_data_has_expected_counts() {
        let countries = parse(&read().unwrap()).unwrap();
        assert_eq!(
            countries.values().map(|country| country.airports.len()).sum::<usize>(),
            28_298
        );
        assert_eq!(countries.len(), 234);
        let at_home = |region| countries.values().filter(|country| country.home() == region).count();
        assert_eq!(REGIONS.map(|(region, _)| at_home(region)), [51, 99, 84]);
        let record = std::str::from_utf8(&countries["de"].airports["EDDF"]).unwrap();
        assert!(record.starts_with("\"EDDF\",\"FRA\""), "{record}");
    }
}

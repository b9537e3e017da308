//! Links between regions: one for each pair, and a proxy for each port of the other side.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::{
    DialMap, Error, Plan,
    error::at,
    layout::{Layout, Node},
};
use crate::{Link, Proxy};

#[derive(Debug)]
pub(super) struct Links {
    /// One entry a pair, in the order of the plan's regions.
    pairs: BTreeMap<(String, String), Link>,
    dial: HashMap<String, DialMap>,
    proxies: Vec<Proxy>,
}

impl Links {
    pub(super) async fn start(plan: &Plan, layout: &Layout) -> Result<Self, Error> {
        let mut links = Self {
            pairs: pairs(plan),
            dial: HashMap::new(),
            proxies: Vec::new(),
        };
        for region in &plan.regions {
            let mut map = DialMap::new();
            for node in layout.nodes.iter().filter(|node| node.region != region.name) {
                let link = links.get(&region.name, &node.region)?;
                links.reach(node, &link, &mut map).await?;
            }
            links.dial.insert(region.name.clone(), map);
        }
        Ok(links)
    }

    async fn reach(&mut self, node: &Node, link: &Link, map: &mut DialMap) -> Result<(), Error> {
        for advertised in [&node.client, &node.peer] {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let proxy = Proxy::start(listen, advertised.clone(), link.clone()).await;
            let proxy = proxy.map_err(at("listen for", Path::new(advertised)))?;
            map.insert(advertised.clone(), proxy.address().to_string());
            self.proxies.push(proxy);
        }
        Ok(())
    }

    pub(super) fn get(&self, from: &str, to: &str) -> Result<Link, Error> {
        let pair = |a: &str, b: &str| self.pairs.get(&(a.to_owned(), b.to_owned()));
        let seen = pair(from, to).cloned().or_else(|| pair(to, from).map(Link::reversed));
        seen.ok_or_else(|| Error::Unknown(format!("link between {from} and {to}")))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str, &Link)> {
        self.pairs
            .iter()
            .map(|((from, to), link)| (from.as_str(), to.as_str(), link))
    }

    pub(super) fn dial(&self, region: &str) -> &DialMap {
        static EMPTY: DialMap = DialMap::new();
        self.dial.get(region).unwrap_or(&EMPTY)
    }
}

fn pairs(plan: &Plan) -> BTreeMap<(String, String), Link> {
    let mut pairs = BTreeMap::new();
    for (at, from) in plan.regions.iter().enumerate() {
        for to in &plan.regions[at + 1..] {
            let is_this = |a: &str, b: &str| (a == from.name && b == to.name) || (a == to.name && b == from.name);
            let known = plan.round_trips.iter().find(|(a, b, _)| is_this(a, b));
            let round_trip = known.map_or(Duration::ZERO, |(_, _, round_trip)| *round_trip);
            pairs.insert((from.name.clone(), to.name.clone()), Link::new(round_trip));
        }
    }
    pairs
}

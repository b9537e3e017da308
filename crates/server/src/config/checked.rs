//! A configuration that can be used: parsed, complete, and refused with a sentence otherwise.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use stead_types::{Jurisdiction, NodeId, RegionName};

use super::{Config, InitialNode, Invalid, Listen, engines};

/// More groups than this cost more than they bring: each commits and elects by itself.
const GROUPS_PER_REGION_MAX: u32 = 16;

/// A listener's addresses, `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address to bind.
    pub listen: String,
    /// The address that others use.
    pub advertise: String,
}

/// One of the first nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// 1, 2, 3, … by position in `cluster.initial`.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: String,
    /// Where it stands.
    pub region: RegionName,
    /// Its advertised client address.
    pub client: String,
    /// Its advertised peer address.
    pub peer: String,
    /// Its advertised HTTP address; may be empty.
    pub http: String,
    /// Only votes in the directory.
    pub witness: bool,
    /// Its storage engine, as far as it is said; empty: any but sled.
    pub engine: String,
}

/// A configuration in which every value was looked at.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Names the cluster.
    pub cluster: String,
    /// The first nodes; the same on every node.
    pub members: Vec<Member>,
    /// Regions and their jurisdictions.
    pub regions: Vec<(RegionName, Jurisdiction)>,
    /// Tenant groups of each region.
    pub groups_per_region: u32,
    /// The longest round trip between voters of the directory.
    pub directory_rtt_max: Duration,
    /// This node.
    pub node: Member,
    /// Where services connect.
    pub client: Listener,
    /// Where other nodes connect.
    pub peer: Listener,
    /// Health, metrics, routes.
    pub http: Listener,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// `fjall`, `sled` or `memory`.
    pub engine: String,
    /// Most bytes of history kept for followers.
    pub history_bytes_max: u64,
    /// Longest time that history is kept for followers.
    pub history_age_max: Duration,
    /// Advertised address to the address to dial.
    pub dial: BTreeMap<String, String>,
    /// How long a stop may take.
    pub shutdown_timeout: Duration,
}

impl Config {
    /// Looks at every value.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used, and what to do.
    pub fn check(&self) -> Result<Checked, Invalid> {
        let members = self.members()?;
        let node = members
            .iter()
            .find(|member| member.name == self.node.name)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
                let problem = format!("{:?} is none of cluster.initial ({})", self.node.name, names.join(", "));
                Invalid::value("node.name", problem)
            })?;
        engines::check("storage.engine", &self.storage.engine)?;
        engines::check_own(&node, &self.storage.engine)?;
        if !["auto", "text", "json"].contains(&self.log.format.as_str()) {
            let problem = format!("{:?} is no format: use auto, text or json", self.log.format);
            return Err(Invalid::value("log.format", problem));
        }
        let checked = Checked {
            cluster: self.cluster.name.clone(),
            regions: self.regions(&members)?,
            groups_per_region: self.groups_per_region()?,
            directory_rtt_max: duration("cluster.directory_rtt_max", &self.cluster.directory_rtt_max)?,
            client: listener("client", &self.client, &node.client)?,
            peer: listener("peer", &self.peer, &node.peer)?,
            http: listener("http", &self.http, &node.http)?,
            data_dir: PathBuf::from(&self.node.data_dir),
            engine: self.storage.engine.clone(),
            history_bytes_max: self.storage.history_bytes_max,
            history_age_max: duration("storage.history_age_max", &self.storage.history_age_max)?,
            dial: self.net.dial.clone(),
            shutdown_timeout: duration("node.shutdown_timeout", &self.node.shutdown_timeout)?,
            members,
            node,
        };
        if !self.storage.sled_majority {
            engines::check_groups(&checked)?;
        }
        Ok(checked)
    }

    fn groups_per_region(&self) -> Result<u32, Invalid> {
        match self.cluster.groups_per_region {
            groups @ 1..=GROUPS_PER_REGION_MAX => Ok(groups),
            groups => {
                let problem = format!("a region has 1 to {GROUPS_PER_REGION_MAX} groups, not {groups}");
                Err(Invalid::value("cluster.groups_per_region", problem))
            }
        }
    }

    fn members(&self) -> Result<Vec<Member>, Invalid> {
        if self.cluster.initial.is_empty() {
            return Err(Invalid::value(
                "cluster.initial",
                "name the first nodes: see `stead config default`",
            ));
        }
        let mut members: Vec<Member> = Vec::new();
        for (position, initial) in self.cluster.initial.iter().enumerate() {
            let member = member(position, initial)?;
            if members.iter().any(|other| other.name == member.name) {
                return Err(Invalid::value(
                    "cluster.initial",
                    format!("two nodes are named {:?}", member.name),
                ));
            }
            members.push(member);
        }
        Ok(members)
    }

    fn regions(&self, members: &[Member]) -> Result<Vec<(RegionName, Jurisdiction)>, Invalid> {
        let mut regions = Vec::new();
        for region in &self.cluster.regions {
            let invalid = |why: String| Invalid::value("cluster.regions", why);
            let name = region.name.parse().map_err(|error| invalid(format!("{error}")))?;
            let jurisdiction = region
                .jurisdiction
                .parse()
                .map_err(|error| invalid(format!("{}: {error}", region.name)))?;
            regions.push((name, jurisdiction));
        }
        match members
            .iter()
            .find(|member| !regions.iter().any(|(name, _)| *name == member.region))
        {
            Some(member) => {
                let problem = format!("node {} is in {}, which is not listed", member.name, member.region);
                Err(Invalid::value("cluster.regions", problem))
            }
            None => Ok(regions),
        }
    }
}

fn member(position: usize, initial: &InitialNode) -> Result<Member, Invalid> {
    let key = |field: &str| format!("cluster.initial[{position}].{field}");
    if initial.name.is_empty() {
        return Err(Invalid::value(key("name"), "a node needs a name"));
    }
    let region = initial
        .region
        .parse()
        .map_err(|error| Invalid::value(key("region"), format!("{error}")))?;
    advertised(&key("peer"), &initial.peer)?;
    advertised(&key("client"), &initial.client)?;
    if !initial.engine.is_empty() {
        engines::check(&key("engine"), &initial.engine)?;
    }
    if !initial.http.is_empty() {
        advertised(&key("http"), &initial.http)?;
    }
    Ok(Member {
        id: NodeId::new(position as u64 + 1),
        name: initial.name.clone(),
        region,
        client: initial.client.clone(),
        peer: initial.peer.clone(),
        http: initial.http.clone(),
        witness: initial.witness,
        engine: initial.engine.clone(),
    })
}

fn listener(section: &str, listen: &Listen, initial: &str) -> Result<Listener, Invalid> {
    let advertise = if listen.advertise.is_empty() {
        initial
    } else {
        &listen.advertise
    };
    if advertise.is_empty() {
        return Err(Invalid::value(
            format!("{section}.advertise"),
            "name the address that others use, host:port",
        ));
    }
    advertised(&format!("{section}.advertise"), advertise)?;
    let bind = if listen.listen.is_empty() {
        advertise
    } else {
        &listen.listen
    };
    port(&format!("{section}.listen"), bind)?;
    Ok(Listener {
        listen: bind.to_owned(),
        advertise: advertise.to_owned(),
    })
}

/// An address that others can dial.
fn advertised(key: &str, address: &str) -> Result<(), Invalid> {
    let host = port(key, address)?;
    if matches!(host, "0.0.0.0" | "[::]" | "") {
        let problem = format!("{address} is no address that others can dial: name this machine's own");
        return Err(Invalid::value(key, problem));
    }
    if address.ends_with(":0") {
        let problem = format!("{address} has no port that others can dial: choose one, 1 to 65535");
        return Err(Invalid::value(key, problem));
    }
    Ok(())
}

/// Returns the host of a `host:port`.
fn port<'a>(key: &str, address: &'a str) -> Result<&'a str, Invalid> {
    match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => Ok(host),
        _ => Err(Invalid::value(key, format!("{address:?} is no host:port"))),
    }
}

fn duration(key: &str, text: &str) -> Result<Duration, Invalid> {
    let problem = |_| Invalid::value(key, format!("{text:?} is no duration, such as 300ms or 24h"));
    humantime::parse_duration(text).map_err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [cluster]
        initial = [{ name = "a", region = "eu", peer = "127.0.0.1:1", client = "127.0.0.1:2", http = "127.0.0.1:3" }]
        regions = [{ name = "eu", jurisdiction = "EU" }]
        [node]
        name = "a"
    "#;

    fn problem(of: &str) -> String {
        Config::load(of, []).unwrap().check().unwrap_err().to_string()
    }

    /// A region of three nodes, the last so many of them on sled; the first one's configuration.
    fn region(on_sled: usize, storage: &str) -> String {
        let node = |number: usize| {
            let engine = if number + on_sled > 3 { "sled" } else { "fjall" };
            format!(
                "{{ name = \"n{number}\", region = \"eu\", peer = \"127.0.0.1:{number}1\", \
                 client = \"127.0.0.1:{number}2\", engine = \"{engine}\" }}"
            )
        };
        let nodes = [1, 2, 3].map(node).join(", ");
        format!(
            "[cluster]\ninitial = [{nodes}]\nregions = [{{ name = \"eu\", jurisdiction = \"EU\" }}]\n\
             [node]\nname = \"n1\"\n[http]\nadvertise = \"127.0.0.1:9\"\n[storage]\n{storage}"
        )
    }

    #[test]
    fn majority_on_sled_is_refused_unless_asked_for() {
        let taken = |text: &str| Config::load(text, []).unwrap().check().map(drop);
        taken(&region(1, "")).unwrap();
        let refused = problem(&region(2, ""));
        assert!(refused.starts_with("cluster.initial: 2 of 3 voters of "), "{refused}");
        assert!(
            refused.ends_with("or set storage.sled_majority = true on every node"),
            "{refused}"
        );
        taken(&region(2, "sled_majority = true")).unwrap();
    }

    #[test]
    fn node_on_sled_must_say_so_to_all() {
        let refused = problem(&region(1, "engine = \"sled\""));
        assert_eq!(
            refused,
            "storage.engine: \"sled\", but cluster.initial says that n1 runs on fjall: write engine = \"sled\" into its \
             entry, on every node"
        );
        let unsaid = format!("{GOOD}\n[storage]\nengine = \"sled\"\nsled_majority = true");
        assert!(problem(&unsaid).contains("does not say what a runs on"));
        assert!(problem(&region(3, "sled_majority = true")).contains("says that n1 runs on sled"));
    }

    #[test]
    fn a_complete_configuration_is_taken() {
        let checked = Config::load(GOOD, []).unwrap().check().unwrap();
        assert_eq!(checked.node.id, NodeId::new(1));
        assert_eq!(checked.client.listen, "127.0.0.1:2");
    }

    #[test]
    fn an_unusable_value_is_named_with_what_to_do() {
        let any = GOOD.replace("127.0.0.1:2", "0.0.0.0:2");
        assert_eq!(
            problem(&any),
            "cluster.initial[0].client: 0.0.0.0:2 is no address that others can dial: name this machine's own"
        );
        let advertise = format!("{GOOD}\n[peer]\nadvertise = \"0.0.0.0:1\"");
        assert!(problem(&advertise).starts_with("peer.advertise: 0.0.0.0:1 is no address"));
        assert!(
            problem(&GOOD.replace("name = \"a\"\n    ", "name = \"b\"\n")).contains("is none of cluster.initial (a)")
        );
        assert!(problem(&format!("{GOOD}\n[storage]\nengine = \"rocks\"")).contains("use fjall, sled or memory"));
        assert!(problem(&format!("{GOOD}\n[log]\nformat = \"xml\"")).contains("use auto, text or json"));
        let no_port = problem(&GOOD.replace("127.0.0.1:2", "127.0.0.1:0"));
        assert!(no_port.contains("choose one, 1 to 65535"), "{no_port}");
        assert!(problem("").starts_with("cluster.initial"));
        assert!(problem(&GOOD.replace("name = \"eu\"", "name = \"us\"")).contains("is in eu, which is not listed"));
    }
}

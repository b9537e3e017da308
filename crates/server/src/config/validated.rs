//! Validation of a configuration: parsing, completing, and errors that say what to do.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use stead_replication::SeedLimits;
use stead_types::{Jurisdiction, NodeId, RegionName};

use crate::auth::AuthConfig;

use super::{
    Config, ConfigError, InitialNode, Joined, ListenConfig, addresses,
    addresses::{check_advertised, check_host_port},
    duration::parse_duration,
    engines, log_level,
    tls::TlsConfig,
};

/// Most groups of a region. More cost more than they bring: each commits and elects by itself.
const GROUPS_PER_REGION_MAX: u32 = 16;
/// Least cap of the history of a seed, in bytes: less is written in the time of a few messages.
const SEED_HISTORY_MIN: u64 = 1 << 20;
/// Least bandwidth of seeds, in bytes a second: a chunk every four seconds.
const SEED_RATE_MIN: u64 = 64 << 10;
/// Least round trip of the directory: below it, a pause of the scheduler would begin elections.
const DIRECTORY_RTT_MIN: Duration = Duration::from_millis(20);
/// Longest one: elections of the directory would take minutes.
const DIRECTORY_RTT_MAX: Duration = Duration::from_secs(5);

/// Addresses of a listener, `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddresses {
    /// The address to bind.
    pub listen: String,
    /// The address that others use.
    pub advertise: String,
}

/// One of the initial nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Id: 1, 2, 3, … by position in `cluster.initial`.
    pub id: NodeId,
    /// Name, unique in the cluster.
    pub name: String,
    /// Its region.
    pub region: RegionName,
    /// Its advertised client address.
    pub client: String,
    /// Its advertised peer address.
    pub peer: String,
    /// Its advertised HTTP address; may be empty.
    pub http: String,
    /// Whether it only votes in the directory.
    pub witness: bool,
    /// Its storage engine, if declared; empty: any but sled.
    pub engine: String,
}

/// A configuration in which every value has been validated.
#[derive(Clone, Debug)]
pub struct ValidatedConfig {
    /// Name of the cluster.
    pub cluster: String,
    /// The initial nodes; the same on every node. On one that has joined: itself, and the directory's voters then.
    pub members: Vec<NodeConfig>,
    /// Whether the node has joined, and is none of the initial ones.
    pub has_joined: bool,
    /// Regions and their jurisdictions.
    pub regions: Vec<(RegionName, Jurisdiction)>,
    /// Number of tenant groups of each region.
    pub groups_per_region: u32,
    /// The longest round trip between voters of the directory.
    pub directory_rtt_max: Duration,
    /// This node.
    pub node: NodeConfig,
    /// Client listener.
    pub client: ListenAddresses,
    /// Peer listener.
    pub peer: ListenAddresses,
    /// HTTP listener.
    pub http: ListenAddresses,
    /// Data directory.
    pub data_dir: PathBuf,
    /// `fjall`, `sled` or `memory`.
    pub engine: String,
    /// Bytes of disk that are kept free; zero: none.
    pub disk_reserve: u64,
    /// Most bytes of history kept for followers.
    pub history_bytes_max: u64,
    /// Longest time that history is kept for followers.
    pub history_age_max: Duration,
    /// Bounds of the seeds that this node sends.
    pub seeds: SeedLimits,
    /// Authentication.
    pub auth: AuthConfig,
    /// Map from an advertised address to the address to dial.
    pub dial: BTreeMap<String, String>,
    /// Longest time for a stop.
    pub shutdown_timeout: Duration,
    /// Certificates, and where plain text is spoken.
    pub tls: TlsConfig,
}

impl Config {
    /// Validates every value.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used, and what to do.
    pub fn validate(&self) -> Result<ValidatedConfig, ConfigError> {
        let (members, node) = match &self.joined {
            Some(joined) => self.joined_members(joined)?,
            None => self.initial_members()?,
        };
        engines::check("storage.engine", &self.storage.engine)?;
        engines::check_own(&node, &self.storage.engine)?;
        log_level::check(&self.log.level)?;
        if self.joined.is_none() {
            addresses::check_distinct(&members)?;
        }
        addresses::check_dial(&self.net.dial)?;
        if !["auto", "text", "json"].contains(&self.log.format.as_str()) {
            let problem = format!("{:?} is not a format: use auto, text or json", self.log.format);
            return Err(ConfigError::value("log.format", problem));
        }
        let mut checked = ValidatedConfig {
            cluster: self.cluster_name()?,
            regions: match self.joined {
                Some(_) => Vec::new(),
                None => self.regions(&members)?,
            },
            has_joined: self.joined.is_some(),
            groups_per_region: self.groups_per_region()?,
            directory_rtt_max: self.directory_rtt_max()?,
            client: listener("client", &self.client, &node.client)?,
            peer: listener("peer", &self.peer, &node.peer)?,
            http: listener("http", &self.http, &node.http)?,
            data_dir: PathBuf::from(&self.node.data_dir),
            engine: self.storage.engine.clone(),
            disk_reserve: self.storage.disk_reserve_bytes,
            history_bytes_max: self.storage.history_bytes_max,
            history_age_max: parse_duration("storage.history_age_max", &self.storage.history_age_max)?,
            seeds: self.seeds()?,
            dial: self.net.dial.clone(),
            auth: self.auth.validate()?,
            shutdown_timeout: parse_duration("node.shutdown_timeout", &self.node.shutdown_timeout)?,
            tls: self.tls.validate()?,
            members,
            node,
        };
        super::tls::check_listeners(&mut checked)?;
        if !self.storage.sled_majority && !checked.has_joined {
            engines::check_groups(&checked)?;
        }
        Ok(checked)
    }

    fn seeds(&self) -> Result<SeedLimits, ConfigError> {
        let (history_max, bytes_per_second_max) =
            (self.storage.seed_history_bytes_max, self.net.seed_bytes_per_second_max);
        let checks = [
            ("storage.seed_history_bytes_max", history_max, SEED_HISTORY_MIN),
            ("net.seed_bytes_per_second_max", bytes_per_second_max, SEED_RATE_MIN),
        ];
        for (key, value, min) in checks {
            if value < min {
                return Err(ConfigError::value(
                    key,
                    format!("{value} is below the least of {min} bytes"),
                ));
            }
        }
        Ok(SeedLimits {
            history_max,
            bytes_per_second_max,
        })
    }

    fn cluster_name(&self) -> Result<String, ConfigError> {
        match self.cluster.name.trim() {
            "" => {
                let problem = "a cluster needs a name, the same on every node: nodes of another one are refused by it";
                Err(ConfigError::value("cluster.name", problem))
            }
            _ => Ok(self.cluster.name.clone()),
        }
    }

    fn directory_rtt_max(&self) -> Result<Duration, ConfigError> {
        const KEY: &str = "cluster.directory_rtt_max";
        let time = parse_duration(KEY, &self.cluster.directory_rtt_max)?;
        if (DIRECTORY_RTT_MIN..=DIRECTORY_RTT_MAX).contains(&time) {
            return Ok(time);
        }
        let problem = format!(
            "{} is not within {} ms and {} s: name the longest round trip between voters of the directory, with room for a \
             busy network",
            self.cluster.directory_rtt_max,
            DIRECTORY_RTT_MIN.as_millis(),
            DIRECTORY_RTT_MAX.as_secs()
        );
        Err(ConfigError::value(KEY, problem))
    }

    fn groups_per_region(&self) -> Result<u32, ConfigError> {
        match self.cluster.groups_per_region {
            groups @ 1..=GROUPS_PER_REGION_MAX => Ok(groups),
            groups => {
                let problem = format!("a region has 1 to {GROUPS_PER_REGION_MAX} groups, not {groups}");
                Err(ConfigError::value("cluster.groups_per_region", problem))
            }
        }
    }

    /// Returns the initial nodes, and this one among them.
    fn initial_members(&self) -> Result<(Vec<NodeConfig>, NodeConfig), ConfigError> {
        let members = self.members()?;
        let own = members.iter().find(|member| member.name == self.node.name).cloned();
        let own = own.ok_or_else(|| {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            let problem = format!(
                "{:?} is not in cluster.initial ({}); a node that was announced later joins with --join ADDRESS",
                self.node.name,
                names.join(", ")
            );
            ConfigError::value("node.name", problem)
        })?;
        Ok((members, own))
    }

    /// Returns what a node that has joined knows of the directory's voters, and the node itself.
    fn joined_members(&self, joined: &Joined) -> Result<(Vec<NodeConfig>, NodeConfig), ConfigError> {
        let region = |region: &str| {
            let parsed = region.parse();
            parsed.map_err(|error| ConfigError::value("node.region", format!("{error}")))
        };
        let listed = self.cluster.initial.iter().find(|listed| listed.name == joined.name);
        let address = |own: &ListenConfig, listed: Option<&String>| match own.advertise.as_str() {
            "" => listed.cloned().unwrap_or_default(),
            own => own.to_owned(),
        };
        let own = NodeConfig {
            id: NodeId::new(joined.node),
            name: joined.name.clone(),
            region: region(&joined.region)?,
            client: address(&self.client, listed.map(|listed| &listed.client)),
            peer: address(&self.peer, listed.map(|listed| &listed.peer)),
            http: address(&self.http, listed.map(|listed| &listed.http)),
            witness: joined.witness,
            engine: self.storage.engine.clone(),
        };
        let mut members = vec![own.clone()];
        for voter in joined.voters.iter().filter(|voter| voter.node != joined.node) {
            members.push(NodeConfig {
                id: NodeId::new(voter.node),
                name: voter.name.clone(),
                region: region(&voter.region)?,
                client: voter.client.clone(),
                peer: voter.peer.clone(),
                http: String::new(),
                witness: false,
                engine: String::new(),
            });
        }
        Ok((members, own))
    }

    fn members(&self) -> Result<Vec<NodeConfig>, ConfigError> {
        if self.cluster.initial.is_empty() {
            return Err(ConfigError::value(
                "cluster.initial",
                "name the first nodes: see `stead config default`",
            ));
        }
        let mut members: Vec<NodeConfig> = Vec::new();
        for (position, initial) in self.cluster.initial.iter().enumerate() {
            let member = member(position, initial)?;
            if members.iter().any(|other| other.name == member.name) {
                return Err(ConfigError::value(
                    "cluster.initial",
                    format!("two nodes are named {:?}", member.name),
                ));
            }
            members.push(member);
        }
        Ok(members)
    }

    fn regions(&self, members: &[NodeConfig]) -> Result<Vec<(RegionName, Jurisdiction)>, ConfigError> {
        let mut regions = Vec::new();
        for region in &self.cluster.regions {
            let invalid = |why: String| ConfigError::value("cluster.regions", why);
            let name = region.name.parse().map_err(|error| invalid(format!("{error}")))?;
            let jurisdiction = region
                .jurisdiction
                .parse()
                .map_err(|error| invalid(format!("{}: {error}", region.name)))?;
            regions.push((name, jurisdiction));
        }
        let is_listed = |member: &&NodeConfig| regions.iter().any(|(name, _)| *name == member.region);
        if let Some(member) = members.iter().find(|member| !is_listed(member)) {
            let problem = format!("node {} is in {}, which is not listed", member.name, member.region);
            return Err(ConfigError::value("cluster.regions", problem));
        }
        if let Some((empty, _)) = regions
            .iter()
            .find(|(name, _)| !members.iter().any(|member| member.region == *name))
        {
            let problem = format!("{empty} has no node in cluster.initial: take it out, or name its nodes there");
            return Err(ConfigError::value("cluster.regions", problem));
        }
        Ok(regions)
    }
}

fn member(position: usize, initial: &InitialNode) -> Result<NodeConfig, ConfigError> {
    let key = |field: &str| format!("cluster.initial[{position}].{field}");
    if initial.name.is_empty() {
        return Err(ConfigError::value(key("name"), "a node needs a name"));
    }
    let region = initial
        .region
        .parse()
        .map_err(|error| ConfigError::value(key("region"), format!("{error}")))?;
    check_advertised(&key("peer"), &initial.peer)?;
    check_advertised(&key("client"), &initial.client)?;
    if !initial.engine.is_empty() {
        engines::check(&key("engine"), &initial.engine)?;
    }
    if !initial.http.is_empty() {
        check_advertised(&key("http"), &initial.http)?;
    }
    Ok(NodeConfig {
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

fn listener(section: &str, listen: &ListenConfig, initial: &str) -> Result<ListenAddresses, ConfigError> {
    let advertise = if listen.advertise.is_empty() {
        initial
    } else {
        &listen.advertise
    };
    if advertise.is_empty() {
        return Err(ConfigError::value(
            format!("{section}.advertise"),
            "name the address that others use, host:port",
        ));
    }
    check_advertised(&format!("{section}.advertise"), advertise)?;
    let bind = if listen.listen.is_empty() {
        advertise
    } else {
        &listen.listen
    };
    check_host_port(&format!("{section}.listen"), bind)?;
    Ok(ListenAddresses {
        listen: bind.to_owned(),
        advertise: advertise.to_owned(),
    })
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

    #[test]
    fn seed_limits_have_defaults_and_a_least_value() {
        let config = Config::load(GOOD, []).unwrap().validate().unwrap();
        assert_eq!(
            (config.seeds.history_max, config.seeds.bytes_per_second_max),
            (1 << 30, 32 << 20)
        );
        assert_eq!(
            problem(&format!("{GOOD}\n[net]\nseed_bytes_per_second_max = 1000")),
            "net.seed_bytes_per_second_max: 1000 is below the least of 65536 bytes"
        );
        let low = problem(&format!("{GOOD}\n[storage]\nseed_history_bytes_max = 0"));
        assert!(low.starts_with("storage.seed_history_bytes_max: 0 is below"), "{low}");
    }

    #[test]
    fn history_defaults_are_the_default_retention_limits() {
        let config = Config::load(GOOD, []).unwrap().validate().unwrap();
        let limits = stead_replication::RetentionLimits::default();
        assert_eq!(
            (config.history_bytes_max, config.history_age_max),
            (limits.len_max, limits.age_max)
        );
    }

    fn problem(of: &str) -> String {
        Config::load(of, []).unwrap().validate().unwrap_err().to_string()
    }

    /// Returns the configuration of the first of three nodes in a region, the last `on_sled` of them on sled.
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
    fn validate_refuses_sled_majority_unless_allowed() {
        let taken = |text: &str| Config::load(text, []).unwrap().validate().map(drop);
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
    fn validate_requires_sled_declared_in_cluster_initial() {
        let refused = problem(&region(1, "engine = \"sled\""));
        assert_eq!(
            refused,
            "storage.engine: \"sled\", but cluster.initial says that n1 runs on fjall: write engine = \"sled\" into its \
             entry, on every node"
        );
        let undeclared = format!("{GOOD}\n[storage]\nengine = \"sled\"\nsled_majority = true");
        assert!(problem(&undeclared).contains("does not say what a runs on"));
        assert!(problem(&region(3, "sled_majority = true")).contains("says that n1 runs on sled"));
    }

    #[test]
    fn validate_accepts_complete_configuration() {
        let checked = Config::load(GOOD, []).unwrap().validate().unwrap();
        assert_eq!(checked.node.id, NodeId::new(1));
        assert_eq!(checked.client.listen, "127.0.0.1:2");
    }

    #[test]
    fn validate_error_names_setting_and_remedy() {
        let any = GOOD.replace("127.0.0.1:2", "0.0.0.0:2");
        assert_eq!(
            problem(&any),
            "cluster.initial[0].client: 0.0.0.0:2 is no address that others can dial: name this machine's own"
        );
        let advertise = format!("{GOOD}\n[peer]\nadvertise = \"0.0.0.0:1\"");
        assert!(problem(&advertise).starts_with("peer.advertise: 0.0.0.0:1 is no address"));
        assert!(
            problem(&GOOD.replace("name = \"a\"\n    ", "name = \"b\"\n")).contains("is not in cluster.initial (a)")
        );
        assert!(problem(&format!("{GOOD}\n[storage]\nengine = \"rocks\"")).contains("use fjall, sled or memory"));
        assert!(problem(&format!("{GOOD}\n[log]\nformat = \"xml\"")).contains("use auto, text or json"));
        let no_port = problem(&GOOD.replace("127.0.0.1:2", "127.0.0.1:0"));
        assert!(no_port.contains("choose one, 1 to 65535"), "{no_port}");
        let twice = problem(&GOOD.replace("127.0.0.1:2", "127.0.0.1:1"));
        assert_eq!(
            twice,
            "cluster.initial: 127.0.0.1:1 is the peer address of a and the client address of a: every listener needs its own"
        );
        let dial = problem(&format!("{GOOD}\n[net.dial]\n\"127.0.0.1:1\" = \"nowhere\""));
        assert_eq!(dial, "net.dial.\"127.0.0.1:1\": \"nowhere\" is no host:port");
        let round_trip = problem(&GOOD.replace("[cluster]", "[cluster]\ndirectory_rtt_max = \"1ms\""));
        assert!(
            round_trip.starts_with("cluster.directory_rtt_max: 1ms is not within 20 ms and 5 s"),
            "{round_trip}"
        );
        let nameless = problem(&GOOD.replace("[cluster]", "[cluster]\nname = \"\""));
        assert!(
            nameless.starts_with("cluster.name: a cluster needs a name"),
            "{nameless}"
        );
        let empty = problem(&GOOD.replace("regions = [", "regions = [{ name = \"us\", jurisdiction = \"US\" }, "));
        assert!(empty.starts_with("cluster.regions: us has no node"), "{empty}");
        assert!(problem(&format!("{GOOD}\n[log]\nlevel = \"loud\"")).starts_with("log.level: \"loud\""));
        assert!(problem("").starts_with("cluster.initial"));
        assert!(problem(&GOOD.replace("name = \"eu\"", "name = \"us\"")).contains("is in eu, which is not listed"));
    }
}

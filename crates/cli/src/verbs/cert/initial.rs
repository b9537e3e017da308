//! `stead cert initial`: the certificates of all nodes of a configuration.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Args;
use stead_cert::{CertificateFolder, LIFETIME, LIFETIME_CA, NewCertificate, Overwrite, Validity};
use stead_server::config::{Config, InitialNode};
use stead_tls::{CertificateName, Subject};

use super::{Folder, failed};
use crate::{
    args::time,
    exit::{Code, CommandError},
    output,
    verbs::serve,
};

#[derive(Debug, Args)]
pub(crate) struct MakeInitial {
    /// A configuration with the nodes in cluster.initial
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name of an operator, who gets a certificate as well; may be given several times
    #[arg(long = "operator", value_name = "NAME")]
    operators: Vec<String>,
    /// DNS name or address in the certificate of every node, beside those of its addresses, such as a load balancer's; may be
    /// given several times
    #[arg(long = "host", value_delimiter = ',', value_name = "HOST")]
    hosts: Vec<String>,
    #[command(flatten)]
    folder: Folder,
    /// Time of validity of the nodes' and operators' certificates [default: 365d]
    #[arg(long, value_parser = time, value_name = "TIME")]
    valid_for: Option<Duration>,
}

impl MakeInitial {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = serve::load(Some(&self.config), [])?;
        if config.cluster.initial.is_empty() {
            let why = format!("{}: cluster.initial names no node", self.config.display());
            return Err(CommandError::new(Code::Usage, why));
        }
        if let Some(host) = self.hosts.iter().find(|host| super::bearer::is_no_host(host)) {
            let message = format!("--host {host:?}: name a DNS name or an address, without a port");
            return Err(CommandError::new(Code::Usage, message));
        }
        let folder = self.folder.open();
        let now = SystemTime::now();
        if !folder.authority().certificate.exists() {
            let validity = Validity::from_now(now, LIFETIME_CA);
            folder.create(&config.cluster.name, validity).map_err(failed)?;
            output::line(&format!("{} is made", folder.authority().certificate.display()))?;
        }
        let of = folder.cluster().map_err(failed)?;
        if of != config.cluster.name {
            let why = format!(
                "--dir: the CA there is of cluster {of}, and cluster.name is {}: name another folder",
                config.cluster.name
            );
            return Err(CommandError::new(Code::Conflict, why));
        }
        let validity = Validity::from_now(now, self.valid_for.unwrap_or(LIFETIME));
        for (subject, hosts) in bearers(&config, self.operators, &self.hosts) {
            let name = CertificateName {
                cluster: of.clone(),
                subject,
            };
            issue(&folder, NewCertificate { name, hosts, validity })?;
        }
        Ok(())
    }
}

/// Returns who gets a certificate, and the hosts in it.
fn bearers(config: &Config, operators: Vec<String>, more: &[String]) -> Vec<(Subject, Vec<String>)> {
    let node = |node: &InitialNode| {
        let subject = Subject::Node {
            region: node.region.clone(),
            name: node.name.clone(),
        };
        (subject, hosts(node, more))
    };
    let operator = |name| (Subject::Operator { name }, Vec::new());
    let nodes = config.cluster.initial.iter().map(node);
    nodes.chain(operators.into_iter().map(operator)).collect()
}

/// Returns the hosts of a node's addresses, and more, each once.
fn hosts(node: &InitialNode, more: &[String]) -> Vec<String> {
    let addresses = [&node.client, &node.peer, &node.http];
    let hosts = addresses
        .into_iter()
        .filter_map(|address| Some(address.rsplit_once(':')?.0));
    let bare = hosts.map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    bare.chain(more.iter().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Makes a certificate that is not there yet.
fn issue(folder: &CertificateFolder, new: NewCertificate) -> Result<(), CommandError> {
    let file = folder.bearer(&new.name.subject).certificate;
    if file.exists() {
        return output::line(&format!("{} is there already", file.display()));
    }
    super::bearer::check_name(&new.name.subject)?;
    let made = folder.issue(&new, Overwrite::Refused).map_err(failed)?;
    output::line(&format!("{} is made, for {}", made.certificate.display(), new.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "[cluster]\nname = \"x\"\ninitial = [\
        { name = \"a\", region = \"eu\", peer = \"a.example:7501\", client = \"a.public:7401\", http = \"a.example:7601\" },\
        { name = \"b\", region = \"us\", peer = \"[::1]:7501\", client = \"10.0.0.2:7401\" }]\n";

    #[test]
    fn every_initial_node_gets_hosts_of_its_addresses() {
        let config = Config::load(TWO, []).unwrap();
        let all = bearers(&config, vec!["ada".into()], &["::1".to_owned()]);
        let hosts: Vec<&[String]> = all.iter().map(|(_, hosts)| &hosts[..]).collect();
        let a = ["::1", "a.example", "a.public"].map(str::to_owned);
        let b = ["10.0.0.2", "::1"].map(str::to_owned);
        assert_eq!(hosts, [&a[..], &b, &[]]);
    }

    #[test]
    fn second_run_keeps_what_is_there_and_another_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("stead.toml");
        std::fs::write(&config, TWO).unwrap();
        let make = || MakeInitial {
            config: config.clone(),
            operators: vec!["ada".into()],
            hosts: Vec::new(),
            folder: Folder {
                dir: dir.path().join("certs"),
            },
            valid_for: None,
        };
        make().run().unwrap();
        let read = || std::fs::read(dir.path().join("certs/node-a.crt")).unwrap();
        let first = read();
        make().run().unwrap();
        assert_eq!(read(), first);
        assert!(dir.path().join("certs/operator-ada.key").exists());
        std::fs::write(&config, TWO.replace("name = \"x\"", "name = \"y\"")).unwrap();
        assert!(make().run().unwrap_err().text().contains("is of cluster x"));
    }
}

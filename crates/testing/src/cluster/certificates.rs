//! Certificates of a cluster: a CA, one of each node, and one of the operator who runs it.

use std::time::SystemTime;

use stead_cert::{LIFETIME, LIFETIME_CA, NewCertificate, Overwrite, Validity};
use stead_client::TlsFiles;
use stead_tls::{CertificateName, Subject};

use super::{
    Error, Plan,
    config::CLUSTER,
    layout::{Layout, Node},
};

/// Name of the operator.
const OPERATOR: &str = "dev";

/// Hosts of nodes: all listen on this machine.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// Returns the subject of a node's certificate.
pub(super) fn subject(node: &Node) -> Subject {
    Subject::Node {
        region: node.region.clone(),
        name: node.name.clone(),
    }
}

/// Makes what is not there yet: a directory that is kept keeps its CA.
pub(super) fn ensure(plan: &Plan, layout: &Layout) -> Result<(), Error> {
    let folder = plan.certificates();
    let now = SystemTime::now();
    if !folder.authority().certificate.exists() {
        folder.create(CLUSTER, Validity::from_now(now, LIFETIME_CA))?;
    }
    let operator = Subject::Operator { name: OPERATOR.into() };
    for subject in layout.nodes.iter().map(subject).chain([operator]) {
        if folder.bearer(&subject).certificate.exists() {
            continue;
        }
        let new = NewCertificate {
            name: CertificateName {
                cluster: CLUSTER.into(),
                subject,
            },
            hosts: HOSTS.map(str::to_owned).into(),
            validity: Validity::from_now(now, LIFETIME),
        };
        folder.issue(&new, Overwrite::Refused)?;
    }
    Ok(())
}

/// Returns the files of the operator.
pub(super) fn of_operator(plan: &Plan) -> TlsFiles {
    plan.certificates()
        .tls_files(&Subject::Operator { name: OPERATOR.into() })
}

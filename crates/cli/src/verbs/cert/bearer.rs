//! `stead cert node`, `client` and `operator`: a certificate with its key.

use std::time::{Duration, SystemTime};

use clap::Args;
use stead_cert::{LIFETIME, NewCertificate, Overwrite, Validity};
use stead_tls::{CertificateName, Subject};
use stead_types::RegionName;

use super::{Folder, failed};
use crate::{
    args::time,
    exit::{Code, CommandError},
    output,
};

#[derive(Debug, Args)]
pub(crate) struct MakeNode {
    /// Name of the node, as cluster.initial has it
    #[arg(value_name = "NAME")]
    name: String,
    /// Region of the node, as cluster.initial has it
    #[arg(long, value_name = "REGION")]
    region: String,
    /// DNS name or address under which clients reach the node, without a port; may be given several times
    #[arg(long = "host", required = true, value_delimiter = ',', value_name = "HOST")]
    hosts: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct MakeClient {
    /// Name of the service
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct MakeOperator {
    /// Name of the operator
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    folder: Folder,
    /// Time of validity [default: 365d]
    #[arg(long, value_parser = time, value_name = "TIME")]
    valid_for: Option<Duration>,
}

impl MakeNode {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if let Some(host) = self.hosts.iter().find(|host| is_no_host(host)) {
            let message = format!("--host {host:?}: name a DNS name or an address, without a port");
            return Err(CommandError::new(Code::Usage, message));
        }
        let region = self.region.parse::<RegionName>();
        let region = region.map_err(|error| CommandError::new(Code::Usage, format!("--region: {error}")))?;
        let subject = Subject::Node {
            region: region.to_string(),
            name: self.name,
        };
        let next = |files: &Files| {
            format!(
                "next: bring the two files and {} to the node, and write into its configuration\n\
                 [tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"",
                files.ca, files.ca, files.certificate, files.key
            )
        };
        self.common.make(subject, self.hosts, next)
    }
}

/// Tells whether a text is no host: empty, or with a port at its end. An address of IPv6 has more colons.
pub(super) fn is_no_host(host: &str) -> bool {
    host.is_empty() || host.matches(':').count() == 1
}

impl MakeClient {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let next = |files: &Files| {
            format!(
                "next: bring the two files and {} to the service, whose client needs all three",
                files.ca
            )
        };
        self.common.make(Subject::Client { name: self.name }, Vec::new(), next)
    }
}

impl MakeOperator {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let next = |files: &Files| {
            format!(
                "next: stead node list --endpoint HOST:PORT --ca {} --certificate {} --certificate-key {}\n\
                 or write ca, certificate and key into a context of ~/.config/stead/config.toml",
                files.ca, files.certificate, files.key
            )
        };
        self.common
            .make(Subject::Operator { name: self.name }, Vec::new(), next)
    }
}

/// Paths of what a bearer needs, as text.
struct Files {
    ca: String,
    certificate: String,
    key: String,
}

impl Common {
    fn make(
        &self,
        subject: Subject,
        hosts: Vec<String>,
        next: impl FnOnce(&Files) -> String,
    ) -> Result<(), CommandError> {
        check_name(&subject)?;
        let folder = self.folder.open();
        let name = CertificateName {
            cluster: folder.cluster().map_err(failed)?,
            subject,
        };
        let uri = name.to_string();
        let new = NewCertificate {
            name,
            hosts,
            validity: Validity::from_now(SystemTime::now(), self.valid_for.unwrap_or(LIFETIME)),
        };
        let made = folder.issue(&new, Overwrite::Refused).map_err(failed)?;
        let files = Files {
            ca: folder.authority().certificate.display().to_string(),
            certificate: made.certificate.display().to_string(),
            key: made.key.display().to_string(),
        };
        output::line(&format!(
            "{} is the certificate of {uri}\n{} is its key, for its bearer only\n{}",
            files.certificate,
            files.key,
            next(&files)
        ))
    }
}

/// Refuses a name that is no name of a file.
pub(super) fn check_name(subject: &Subject) -> Result<(), CommandError> {
    let (Subject::Node { name, .. } | Subject::Client { name } | Subject::Operator { name }) = subject;
    if name.is_empty() || name.contains(['/', '\\', '\0']) {
        let message = format!("{name:?} is no name: use letters, digits and -");
        return Err(CommandError::new(Code::Usage, message));
    }
    Ok(())
}

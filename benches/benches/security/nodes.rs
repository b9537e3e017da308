//! Nodes to compare: in plain text, with TLS, and with TLS where callers need roles.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use stead_benches::one_node_with;
use stead_cert::{CertificateFolder, LIFETIME, LIFETIME_CA, NewCertificate, Overwrite, Validity};
use stead_client::{Client, Config, NewTenant, Tenant, TlsFiles, TokenSource};
use stead_server::{
    auth::{TokenRequest, generate_issuer_keys, sign_token},
    environment::Environment,
};
use stead_store::Disk;
use stead_tls::{CertificateName, Subject};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Name of the cluster, region and node, as `one_node_with` configures them.
const CLUSTER: &str = "stead";
const REGION: &str = "here";
const NODE: &str = "one";
const TENANT: &str = "acme";
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Protection of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// None.
    Plain,
    /// TLS; everybody may do everything.
    Tls,
    /// TLS, and a token with roles for a prefix.
    TlsAndRoles,
}

impl Protection {
    /// All of them, what is compared with first.
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::TlsAndRoles];

    /// Returns the name in the table.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain text",
            Self::Tls => "TLS",
            Self::TlsAndRoles => "TLS and roles",
        }
    }
}

/// Node that runs in this process, with a client of it.
pub(crate) struct RunningNode {
    /// Its protection.
    pub(crate) protection: Protection,
    /// Tenant, as its client sees it.
    pub(crate) tenant: Tenant,
    stop: CancellationToken,
    node: JoinHandle<Result<stead_server::node::RunEnd, stead_server::node::Error>>,
}

impl RunningNode {
    /// Starts a node and makes its tenant.
    pub(crate) async fn start(protection: Protection, folder: &Path) -> Result<Self> {
        let certificates = certificates(folder)?;
        let mut settings = String::new();
        let mut client_tls = None;
        if protection != Protection::Plain {
            let files = certificates.tls_files(&node_subject());
            settings += &tls_settings(&files);
            client_tls = Some(certificates.tls_files(&Subject::Operator { name: "ada".into() }));
        }
        let mut token = TokenSource::default();
        if protection == Protection::TlsAndRoles {
            let (auth, signed) = issuer(folder)?;
            settings += &auth;
            token = TokenSource::text(&signed)?;
        }
        let (config, address) = one_node_with(&settings)?;
        let environment = Environment::real(config.dial.clone());
        let stop = CancellationToken::new();
        let run = stead_server::node::run(
            config,
            environment,
            Some(Disk::default()),
            stop.clone(),
            Box::new(|| ()),
        );
        let node = tokio::spawn(run);
        let config = Config {
            tls: client_tls,
            token,
            ..Config::new([address])
        };
        let client = Client::connect(config).await?;
        let new = NewTenant {
            name: TENANT.into(),
            ..NewTenant::default()
        };
        client.admin().create_tenant(new).await?;
        Ok(Self {
            protection,
            tenant: client.tenant(TENANT)?,
            stop,
            node,
        })
    }

    /// Stops the node.
    pub(crate) async fn stop(self) -> Result<()> {
        drop(self.tenant);
        self.stop.cancel();
        self.node.await??;
        Ok(())
    }
}

fn node_subject() -> Subject {
    Subject::Node {
        region: REGION.into(),
        name: NODE.into(),
    }
}

/// Returns the folder with a CA, the node's certificate and an operator's, which it makes once.
fn certificates(folder: &Path) -> Result<CertificateFolder> {
    let certificates = CertificateFolder::at(folder.join("certs"));
    if certificates.authority().certificate.exists() {
        return Ok(certificates);
    }
    let now = SystemTime::now();
    certificates.create(CLUSTER, Validity::from_now(now, LIFETIME_CA))?;
    for subject in [node_subject(), Subject::Operator { name: "ada".into() }] {
        let new = NewCertificate {
            name: CertificateName {
                cluster: CLUSTER.into(),
                subject,
            },
            hosts: vec!["127.0.0.1".into()],
            validity: Validity::from_now(now, LIFETIME),
        };
        certificates.issue(&new, Overwrite::Refused)?;
    }
    Ok(certificates)
}

fn tls_settings(files: &TlsFiles) -> String {
    let path = |file: Option<&std::path::PathBuf>| file.map(|file| file.display().to_string()).unwrap_or_default();
    format!(
        "[tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        files.ca.display(),
        path(files.certificate.as_ref()),
        path(files.key.as_ref())
    )
}

/// Returns the settings of an issuer, and a token of it whose roles cover the keys of this benchmark and no others.
fn issuer(folder: &Path) -> Result<(String, String)> {
    let keys = generate_issuer_keys()?;
    let public = folder.join("issuer.pub");
    fs::write(&public, &keys.public_key)?;
    let settings = format!(
        "[auth]\nmode = \"required\"\nissuers = [{{ name = \"bench\", public_key_file = \"{}\", grants_roles = true }}]\n",
        public.display()
    );
    let roles = ["cluster-operator", "tenant-reader:acme:k/", "tenant-writer:acme:k/"];
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let request = TokenRequest {
        issuer: "bench".into(),
        subject: "bench".into(),
        cluster: CLUSTER.into(),
        roles: roles.map(str::to_owned).into(),
        issued: since_1970.as_secs(),
        lifetime: TOKEN_LIFETIME.as_secs(),
    };
    Ok((settings, sign_token(&keys.private_key, &request)?))
}

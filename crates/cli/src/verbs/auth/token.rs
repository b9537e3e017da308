//! `stead auth token` and `stead auth emergency`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Args;
use stead_server::auth::{TokenRequest, check_role, sign_token};

use super::secret_file;
use crate::{
    args::time,
    exit::{Code, CommandError},
    output,
};

/// Longest life of a token for emergencies: nodes take no longer one.
const EMERGENCY_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Name of the issuer, as in auth.issuers
    #[arg(long)]
    issuer: String,
    /// File of its private key, from `stead auth keygen`
    #[arg(long)]
    key: PathBuf,
    /// Name of the cluster, cluster.name
    #[arg(long, default_value = "stead")]
    cluster: String,
    /// Name of the caller: its identity is token/ISSUER/SUBJECT
    #[arg(long)]
    subject: String,
    /// Role that the token gives, if its issuer may; may be given several times
    #[arg(long)]
    role: Vec<String>,
    /// How long it counts
    #[arg(long, default_value = "12h", value_parser = time)]
    lifetime: Duration,
    /// File for the token; else it is printed
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Token {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let token = sign(
            &self.key,
            self.issuer,
            self.subject,
            self.cluster,
            self.role,
            self.lifetime,
        )?;
        emit(self.out.as_deref(), &token)
    }
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
The issuer must have emergency = true in the configuration of every node. Each call with the token raises an alarm
(stead_emergency_calls_total) and is in the audit log. It operates the cluster and reads every tenant.")]
pub(crate) struct Emergency {
    /// Name of the emergency issuer, as in auth.issuers
    #[arg(long)]
    issuer: String,
    /// File of its private key; keep it sealed too, or destroy it afterwards
    #[arg(long)]
    key: PathBuf,
    /// Name of the cluster, cluster.name
    #[arg(long, default_value = "stead")]
    cluster: String,
    /// Name of who is to use it, for the audit log
    #[arg(long)]
    subject: String,
    /// File for the token
    #[arg(long)]
    out: PathBuf,
}

impl Emergency {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let roles = ["cluster-operator", "auditor", "tenant-reader:*"].map(str::to_owned);
        let token = sign(
            &self.key,
            self.issuer,
            self.subject,
            self.cluster,
            roles.into(),
            EMERGENCY_LIFETIME,
        )?;
        emit(Some(&self.out), &token)?;
        eprintln!("counts for 400 days: seal it, and make another one before it ends");
        Ok(())
    }
}

fn sign(
    key: &Path,
    issuer: String,
    subject: String,
    cluster: String,
    roles: Vec<String>,
    lifetime: Duration,
) -> Result<String, CommandError> {
    for role in &roles {
        check_role(role).map_err(|why| CommandError::new(Code::Usage, format!("--role: {why}")))?;
    }
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let request = TokenRequest {
        issuer,
        subject,
        cluster,
        roles,
        issued: since_1970.map_or(0, |time| time.as_secs()),
        lifetime: lifetime.as_secs(),
    };
    let private_key = secret_file::read(key)?;
    sign_token(&private_key, &request)
        .map_err(|error| CommandError::new(Code::Usage, format!("{}: {error}", key.display())))
}

fn emit(out: Option<&Path>, token: &str) -> Result<(), CommandError> {
    match out {
        Some(file) => secret_file::create(file, &format!("{token}\n")),
        None => output::line(token),
    }
}

//! Credentials of a cluster that asks for them: an issuer of tokens in the cluster's folder, and an operator's token.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Error, Plan, error::at};

/// Name of the issuer, in the configuration of nodes and in tokens.
pub const ISSUER: &str = "dev";
/// Name of the emergency issuer.
pub const EMERGENCY_ISSUER: &str = "emergency";
/// Roles of the operator's token: it does everything.
const OPERATOR_ROLES: [&str; 4] = ["cluster-operator", "auditor", "tenant-reader:*", "tenant-writer:*"];
/// How long the token counts: as long as the configuration of nodes allows.
const LIFETIME: &str = "30d";

/// Files of the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    folder: PathBuf,
    binary: PathBuf,
}

impl Credentials {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            folder: plan.data.join("auth"),
            binary: plan.binary.clone(),
        }
    }

    /// Returns the file with the operator's token.
    pub fn operator_token(&self) -> PathBuf {
        self.folder.join("operator.token")
    }

    /// Returns the file with the private key of an issuer.
    pub fn private_key(&self, issuer: &str) -> PathBuf {
        self.folder.join(format!("{issuer}.key"))
    }

    /// Returns the file with the public keys of an issuer.
    pub(super) fn public_key(&self, issuer: &str) -> PathBuf {
        self.folder.join(format!("{issuer}.key.pub"))
    }

    /// Makes the keys that are not there yet, and a new operator's token.
    pub(super) fn make(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.folder).map_err(at("create", &self.folder))?;
        for issuer in [ISSUER, EMERGENCY_ISSUER] {
            let key = self.private_key(issuer);
            if !key.exists() {
                self.run(&["keygen".as_ref(), key.as_os_str()])?;
            }
        }
        let token = self.operator_token();
        let _missing = fs::remove_file(&token);
        self.make_token("operator", &OPERATOR_ROLES, &token)
    }

    /// Makes a token of the issuer for a subject, which gives these roles, in a new file.
    ///
    /// # Errors
    ///
    /// The binary cannot make it, for instance because the file exists.
    pub fn make_token(&self, subject: &str, roles: &[&str], out: &Path) -> Result<(), Error> {
        let key = self.private_key(ISSUER);
        let mut arguments: Vec<&std::ffi::OsStr> = ["token", "--issuer", ISSUER, "--cluster", "dev", "--subject"]
            .map(AsRef::as_ref)
            .into();
        arguments.extend::<[&std::ffi::OsStr; 6]>([
            subject.as_ref(),
            "--lifetime".as_ref(),
            LIFETIME.as_ref(),
            "--key".as_ref(),
            key.as_os_str(),
            "--out".as_ref(),
        ]);
        arguments.push(out.as_os_str());
        for role in roles {
            arguments.extend::<[&std::ffi::OsStr; 2]>(["--role".as_ref(), role.as_ref()]);
        }
        self.run(&arguments)
    }

    fn run(&self, arguments: &[&std::ffi::OsStr]) -> Result<(), Error> {
        let mut command = Command::new(&self.binary);
        command
            .arg("auth")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let output = command
            .stderr(Stdio::piped())
            .output()
            .map_err(at("start", &self.binary))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Credentials(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

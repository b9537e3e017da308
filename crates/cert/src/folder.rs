//! Folder with the certificates of a cluster: `ca.crt`, `ca.key`, and a pair of files for each bearer.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use stead_tls::{Certificate, CertificateName, Subject, TlsError, TlsFiles, read_certificates};

use crate::{
    authority::{Authority, CertError, NewCertificate, Validity},
    files::{FileError, Overwrite, PairFiles, write_certificate, write_pair},
};

/// Line that ends a certificate in PEM.
const PEM_END: &str = "-----END CERTIFICATE-----";

/// Folder of certificates. The keys of the CA and of all bearers lie in it: it belongs on the machine of an operator, and
/// only what a bearer needs on the bearer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFolder(PathBuf);

/// Error of a folder of certificates.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is no CA.
    #[error("{} has no CA: `stead cert ca` makes one", .0.display())]
    NoAuthority(PathBuf),
    /// A file or folder cannot be read or made.
    #[error("{} cannot be used: {source}", path.display())]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The CA does not name its cluster.
    #[error("the CA in {} does not name its cluster: make it with `stead cert ca`", .0.display())]
    NoCluster(PathBuf),
    /// There is no roll-over to end.
    #[error("{} trusts one CA only: there is no roll-over to end", .0.display())]
    NoRollOver(PathBuf),
    /// Certificates of the CA that would be given up are in use.
    #[error(
        "{} is issued by the CA that would be given up: run `stead cert rotate` first, and bring the new files to where they \
         are used",
        .0.display()
    )]
    StillIssued(PathBuf),
    /// A certificate cannot be made.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl CertificateFolder {
    /// Returns the folder at a path, which need not be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the files of the CA.
    pub fn authority(&self) -> PairFiles {
        PairFiles::of(&self.0, "ca")
    }

    /// Returns the files of a bearer.
    pub fn bearer(&self, subject: &Subject) -> PairFiles {
        let name = match subject {
            Subject::Node { name, .. } => format!("node-{name}"),
            Subject::Client { name } => format!("client-{name}"),
            Subject::Operator { name } => format!("operator-{name}"),
        };
        PairFiles::of(&self.0, &name)
    }

    /// Returns the files that a bearer's side of connections needs.
    pub fn tls_files(&self, subject: &Subject) -> TlsFiles {
        let PairFiles { certificate, key } = self.bearer(subject);
        TlsFiles {
            ca: self.authority().certificate,
            certificate: Some(certificate),
            key: Some(key),
        }
    }

    /// Makes the folder, and a CA in it.
    ///
    /// # Errors
    ///
    /// A CA that is there already, or a folder that cannot be written.
    pub fn create(&self, cluster: &str, validity: Validity) -> Result<PairFiles, FolderError> {
        fs::create_dir_all(&self.0).map_err(|source| FolderError::Path {
            path: self.0.clone(),
            source,
        })?;
        let files = self.authority();
        let made = Authority::create(cluster, validity)?;
        write_pair(&files, made.own(), Overwrite::Refused)?;
        Ok(files)
    }

    /// Returns the name of the CA's cluster.
    ///
    /// # Errors
    ///
    /// A folder without a CA.
    pub fn cluster(&self) -> Result<String, FolderError> {
        let file = self.authority().certificate;
        if !file.exists() {
            return Err(FolderError::NoAuthority(self.0.clone()));
        }
        let first = read_certificates(&file)?.into_iter().next();
        let cluster = first.and_then(|certificate| certificate.organisation);
        cluster.ok_or(FolderError::NoCluster(file))
    }

    /// Issues a certificate to a bearer, and writes it with its key.
    ///
    /// # Errors
    ///
    /// A folder without a CA, or files that are there already.
    pub fn issue(&self, new: &NewCertificate, overwrite: Overwrite) -> Result<PairFiles, FolderError> {
        let files = self.bearer(&new.name.subject);
        let issued = self.load()?.issue(new)?;
        write_pair(&files, &issued, overwrite)?;
        Ok(files)
    }

    /// Issues a new certificate with a new key to each bearer, with the names of the old one and as long a validity.
    ///
    /// # Errors
    ///
    /// A folder without a CA, or a file that cannot be read or written.
    pub fn renew(&self, now: SystemTime) -> Result<Vec<PathBuf>, FolderError> {
        let mut renewed = Vec::new();
        for BearerCertificate { certificate, name, .. } in self.held()? {
            let lived = certificate.not_after.saturating_sub(certificate.not_before);
            let lifetime = Duration::from_secs(u64::try_from(lived).unwrap_or(0)).saturating_sub(crate::BACKDATE);
            let addresses = certificate.addresses.iter().map(ToString::to_string);
            let new = NewCertificate {
                name,
                hosts: certificate.dns.iter().cloned().chain(addresses).collect(),
                validity: Validity::from_now(now, lifetime),
            };
            renewed.push(self.issue(&new, Overwrite::Allowed)?.certificate);
        }
        Ok(renewed)
    }

    /// Makes a new CA, which issues from now on. The file of CAs has both, so that certificates of both are trusted.
    ///
    /// # Errors
    ///
    /// A folder without a CA, or a file that cannot be written.
    pub fn begin_roll_over(&self, validity: Validity) -> Result<(), FolderError> {
        let files = self.authority();
        let cluster = self.cluster()?;
        let old = self.read(&files.certificate)?;
        let mut issued = Authority::create(&cluster, validity)?.own().clone();
        issued.certificate = format!("{}\n{old}", issued.certificate.trim_end());
        write_pair(&files, &issued, Overwrite::Allowed)?;
        Ok(())
    }

    /// Gives up all CAs but the newest one.
    ///
    /// # Errors
    ///
    /// One CA only, or a bearer whose certificate another CA has issued.
    pub fn end_roll_over(&self) -> Result<(), FolderError> {
        let file = self.authority().certificate;
        let trusted = read_certificates(&file)?;
        let Some(newest) = trusted.first().filter(|_| trusted.len() > 1) else {
            return Err(FolderError::NoRollOver(file));
        };
        if let Some(held) = self
            .held()?
            .into_iter()
            .find(|held| held.certificate.issuer != newest.subject)
        {
            return Err(FolderError::StillIssued(held.file));
        }
        let text = self.read(&file)?;
        let end = text.find(PEM_END).map_or(text.len(), |at| at + PEM_END.len());
        write_certificate(&file, &format!("{}\n", &text[..end]))?;
        Ok(())
    }

    /// Returns the certificate files of the folder, those of the CA first.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, FolderError> {
        let failed = |source| FolderError::Path {
            path: self.0.clone(),
            source,
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                files.push(path);
            }
        }
        let authority = self.authority().certificate;
        files.sort_by_key(|file| (*file != authority, file.clone()));
        Ok(files)
    }

    /// Returns the certificates of bearers.
    fn held(&self) -> Result<Vec<BearerCertificate>, FolderError> {
        let authority = self.authority().certificate;
        let mut held = Vec::new();
        for file in self.files()?.into_iter().filter(|file| *file != authority) {
            let Some(certificate) = read_certificates(&file)?.into_iter().next() else {
                continue;
            };
            // A certificate of somebody else may lie here.
            if let Some(name) = certificate
                .name()
                .filter(|name| self.bearer(&name.subject).certificate == file)
            {
                held.push(BearerCertificate {
                    file,
                    certificate,
                    name,
                });
            }
        }
        Ok(held)
    }

    fn load(&self) -> Result<Authority, FolderError> {
        let files = self.authority();
        if !files.certificate.exists() {
            return Err(FolderError::NoAuthority(self.0.clone()));
        }
        Ok(Authority::load(
            &self.read(&files.certificate)?,
            &self.read(&files.key)?,
        )?)
    }

    fn read(&self, path: &Path) -> Result<String, FolderError> {
        fs::read_to_string(path).map_err(|source| FolderError::Path {
            path: path.to_owned(),
            source,
        })
    }
}

/// Certificate of a bearer in a folder.
struct BearerCertificate {
    file: PathBuf,
    certificate: Certificate,
    name: CertificateName,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LIFETIME, LIFETIME_CA};

    fn issuer(file: &Path) -> String {
        read_certificates(file).unwrap().remove(0).issuer
    }

    #[test]
    fn authority_is_rolled_over_in_three_steps() {
        let folder = tempfile::tempdir().unwrap();
        let certs = CertificateFolder::at(folder.path().join("certs"));
        let (old, now) = (
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            SystemTime::now(),
        );
        certs.create("prod", Validity::from_now(old, LIFETIME_CA)).unwrap();
        let new = NewCertificate {
            name: "stead://prod/node/eu-west/a".parse().unwrap(),
            hosts: vec!["a.example".into(), "10.0.0.1".into()],
            validity: Validity::from_now(now, LIFETIME),
        };
        let node = certs.issue(&new, Overwrite::Refused).unwrap().certificate;
        assert!(
            certs.issue(&new, Overwrite::Refused).is_err(),
            "nothing is overwritten silently"
        );
        assert!(matches!(certs.end_roll_over(), Err(FolderError::NoRollOver(_))));
        certs.begin_roll_over(Validity::from_now(now, LIFETIME_CA)).unwrap();
        let trusted = read_certificates(&certs.authority().certificate).unwrap();
        assert_eq!(trusted.len(), 2);
        assert!(matches!(certs.end_roll_over(), Err(FolderError::StillIssued(_))));
        assert_eq!(issuer(&node), trusted[1].subject);
        let before = read_certificates(&node).unwrap().remove(0);
        certs.renew(now).unwrap();
        let after = read_certificates(&node).unwrap().remove(0);
        assert_eq!(after.issuer, trusted[0].subject);
        assert_eq!(
            (after.name(), after.dns, after.addresses),
            (before.name(), before.dns, before.addresses)
        );
        assert_ne!(after.serial, before.serial);
        certs.end_roll_over().unwrap();
        let left = read_certificates(&certs.authority().certificate).unwrap();
        assert_eq!((left.len(), &left[0].subject), (1, &trusted[0].subject));
        assert_eq!(certs.cluster().unwrap(), "prod");
    }

    #[test]
    fn folder_without_authority_issues_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let certs = CertificateFolder::at(folder.path());
        assert!(matches!(certs.cluster(), Err(FolderError::NoAuthority(_))));
    }
}

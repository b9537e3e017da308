//! Certificate authority of one cluster.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use stead_tls::{CertificateName, Subject};
use time::OffsetDateTime;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Default time of validity of a CA.
pub const LIFETIME_CA: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// Default time of validity of other certificates.
pub const LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());
/// Time before its making from which a certificate is valid: clocks differ.
pub const BACKDATE: Duration = Duration::from_secs(300);

/// Time of validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Begin.
    pub not_before: SystemTime,
    /// End.
    pub not_after: SystemTime,
}

impl Validity {
    /// Returns the validity of a certificate that is made now, for so long.
    pub fn from_now(now: SystemTime, lifetime: Duration) -> Self {
        Self {
            not_before: now - BACKDATE,
            not_after: now + lifetime,
        }
    }
}

/// Content of a certificate to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCertificate {
    /// Name of the bearer. A node's certificate is for both sides of connections, all others for the connecting side.
    pub name: CertificateName,
    /// DNS names and addresses under which clients reach a node.
    pub hosts: Vec<String>,
    /// Time of validity.
    pub validity: Validity,
}

/// Certificate and its key, in PEM. It shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// Certificate.
    pub certificate: String,
    /// Key.
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Error of a certificate that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The certificate or the key of the CA cannot be used.
    #[error("the certificate and the key of the CA cannot be used: name the files that `stead cert ca` made")]
    Authority(#[source] rcgen::Error),
    /// A DNS name or a URI with characters that certificates cannot hold.
    #[error("{0:?} cannot be in a certificate: use ASCII")]
    Name(String),
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Making(#[source] rcgen::Error),
}

/// Certificate authority, ready to issue. It has no `Debug`: its key is in it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    issued: Issued,
}

impl Authority {
    /// Makes a CA of a cluster.
    ///
    /// # Errors
    ///
    /// No randomness, or a name that a certificate cannot hold.
    pub fn create(cluster: &str, validity: Validity) -> Result<Self, CertError> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, validity);
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, cluster);
        let since = OffsetDateTime::from(validity.not_before).unix_timestamp();
        // CAs of one cluster have different names, so that people can tell them apart during a roll-over.
        name.push(DnType::CommonName, format!("Stead CA {since} of {cluster}"));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(CertError::Making)?;
        let text = key.serialize_pem();
        let made = CertifiedIssuer::self_signed(params, key).map_err(CertError::Making)?;
        Self::load(&made.pem(), &text)
    }

    /// Loads a CA from PEM; of several certificates the first one counts.
    ///
    /// # Errors
    ///
    /// A certificate or key that cannot be used.
    pub fn load(certificate: &str, key: &str) -> Result<Self, CertError> {
        let pair = KeyPair::from_pem(key).map_err(CertError::Authority)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, pair).map_err(CertError::Authority)?;
        Ok(Self {
            issuer,
            issued: Issued {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
        })
    }

    /// Returns the CA's own certificate and key.
    pub fn own(&self) -> &Issued {
        &self.issued
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    ///
    /// No randomness, or a name that a certificate cannot hold.
    pub fn issue(&self, new: &NewCertificate) -> Result<Issued, CertError> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, new.validity);
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common_name(&new.name.subject));
        params.distinguished_name = name;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match new.name.subject {
            Subject::Node { .. } => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Subject::Client { .. } | Subject::Operator { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params
            .subject_alt_names
            .push(SanType::URI(ascii(&new.name.to_string())?));
        for host in &new.hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(ascii(host)?),
            });
        }
        let key = KeyPair::generate().map_err(CertError::Making)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CertError::Making)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn common_name(subject: &Subject) -> &str {
    match subject {
        Subject::Node { name, .. } | Subject::Client { name } | Subject::Operator { name } => name,
    }
}

fn ascii(text: &str) -> Result<Ia5String, CertError> {
    text.try_into().map_err(|_| CertError::Name(text.to_owned()))
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_certificate_shows_no_key() {
        let now = SystemTime::now();
        let authority = Authority::create("prod", Validity::from_now(now, LIFETIME_CA)).unwrap();
        let shown = format!("{:?}", authority.own());
        assert!(shown.contains("BEGIN CERTIFICATE"), "{shown}");
        assert!(!shown.contains("PRIVATE KEY"), "a key is in {shown}");
        assert!(authority.own().key.contains("PRIVATE KEY"));
    }

    #[test]
    fn loaded_authority_issues_certificates() {
        let now = SystemTime::now();
        let made = Authority::create("prod", Validity::from_now(now, LIFETIME_CA)).unwrap();
        let loaded = Authority::load(&made.own().certificate, &made.own().key).unwrap();
        let mut new = NewCertificate {
            name: "stead://prod/node/eu-west/eu-west-1".parse().unwrap(),
            hosts: vec!["localhost".into(), "127.0.0.1".into()],
            validity: Validity::from_now(now, LIFETIME),
        };
        assert!(loaded.issue(&new).unwrap().certificate.contains("BEGIN CERTIFICATE"));
        new.hosts = vec!["b\u{fc}cher.example".into()];
        assert!(matches!(loaded.issue(&new), Err(CertError::Name(_))));
        assert!(Authority::load("nothing", "nothing").is_err());
    }
}

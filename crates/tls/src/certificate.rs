//! Certificate as operators see it: names, issuer and time of validity.

use std::{net::IpAddr, path::Path};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

use crate::{error::TlsError, name::CertificateName};

/// Certificate of a file, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Name of the bearer, as X.509 has it.
    pub subject: String,
    /// Name of the issuer.
    pub issuer: String,
    /// Organisation of the bearer; that of a CA of `stead cert` is its cluster.
    pub organisation: Option<String>,
    /// Serial number, in hexadecimal digits.
    pub serial: String,
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// Begin of its validity, in seconds since 1970.
    pub not_before: i64,
    /// End of its validity, in seconds since 1970.
    pub not_after: i64,
    /// Whether it may issue others.
    pub is_ca: bool,
}

/// Error of bytes that are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no certificate of X.509")]
pub struct InvalidCertificate;

impl Certificate {
    /// Parses a certificate in DER.
    ///
    /// # Errors
    ///
    /// Bytes that are no certificate.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| InvalidCertificate)?;
        let mut certificate = Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            organisation: organisation(&parsed),
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            uris: Vec::new(),
            dns: Vec::new(),
            addresses: Vec::new(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_ca: parsed.is_ca(),
        };
        let names = parsed.subject_alternative_name().map_err(|_| InvalidCertificate)?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        for name in names {
            if let GeneralName::URI(uri) = name {
                certificate.uris.push((*uri).to_owned());
            } else if let GeneralName::DNSName(name) = name {
                certificate.dns.push((*name).to_owned());
            } else if let GeneralName::IPAddress(bytes) = name {
                certificate.addresses.extend(address(bytes));
            }
        }
        Ok(certificate)
    }

    /// Returns the one name of Stead that it carries; `None` where there is none or more than one.
    pub fn name(&self) -> Option<CertificateName> {
        let mut names = self.uris.iter().filter(|uri| CertificateName::has_scheme(uri));
        let name = names.next()?.parse().ok()?;
        names.next().is_none().then_some(name)
    }
}

fn organisation(certificate: &X509Certificate<'_>) -> Option<String> {
    let first = certificate.subject().iter_organization().next()?;
    first.as_str().ok().map(str::to_owned)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Returns a time as text, in UTC.
pub(crate) fn time_text(seconds: i64) -> String {
    ASN1Time::from_timestamp(seconds).map_or_else(|_| format!("{seconds} s since 1970"), |time| time.to_string())
}

/// Reads the certificates of a PEM file.
///
/// # Errors
///
/// A file that cannot be read, or that has no certificates.
pub fn read(path: &Path) -> Result<Vec<Certificate>, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::Unreadable {
        file: path.to_owned(),
        source,
    })?;
    let malformed = |_| TlsError::Malformed { file: path.to_owned() };
    let chain = chain(&text, path)?;
    chain
        .iter()
        .map(|der| Certificate::parse(der).map_err(malformed))
        .collect()
}

/// Returns the certificates of a PEM text, of which there is one at least.
pub(crate) fn chain(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|_| TlsError::Malformed { file: path.to_owned() })?;
    if chain.is_empty() {
        return Err(TlsError::Missing {
            file: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(chain)
}

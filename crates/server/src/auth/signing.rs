//! Keys and tokens for set-ups without an issuer of their own.

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::Serialize;
use stead_state::authorization::{AccessRole, InvalidRole};

/// DER of a public key up to its 32 bytes (RFC 8410).
const PUBLIC_KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Keys of an issuer, in PEM.
pub struct IssuerKeys {
    /// Private key, which signs tokens: a secret.
    pub private_key: String,
    /// Public key, which nodes verify tokens with.
    pub public_key: String,
}

/// Content of a token to make.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Name of the issuer, as the nodes know it.
    pub issuer: String,
    /// Name of the caller.
    pub subject: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Roles that the token gives.
    pub roles: Vec<String>,
    /// Time of issue, in seconds since 1970.
    pub issued: u64,
    /// Seconds until it ends.
    pub lifetime: u64,
}

/// Error of keys and tokens. It holds nothing of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The private key cannot be used.
    #[error("the file holds no Ed25519 private key in PEM (BEGIN PRIVATE KEY): `stead auth keygen` makes one")]
    Key,
}

/// Generates the keys of an issuer.
///
/// # Errors
///
/// The system gives no random numbers.
pub fn generate_issuer_keys() -> Result<IssuerKeys, SigningError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SigningError::Random)?;
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| SigningError::Key)?;
    let public = [&PUBLIC_KEY_PREFIX, pair.public_key().as_ref()].concat();
    Ok(IssuerKeys {
        private_key: pem("PRIVATE KEY", document.as_ref()),
        public_key: pem("PUBLIC KEY", &public),
    })
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body: Vec<_> = lines.collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", body.join("\n"))
}

#[derive(Serialize)]
struct TokenClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stead_roles: &'a [String],
}

/// Signs a token with a private key in PEM.
///
/// # Errors
///
/// The key cannot be used.
pub fn sign_token(private_key: &str, request: &TokenRequest) -> Result<String, SigningError> {
    let key = EncodingKey::from_ed_pem(private_key.as_bytes()).map_err(|_| SigningError::Key)?;
    let claims = TokenClaims {
        iss: &request.issuer,
        sub: &request.subject,
        aud: &request.cluster,
        iat: request.issued,
        exp: request.issued.saturating_add(request.lifetime),
        stead_roles: &request.roles,
    };
    encode(&Header::new(Algorithm::EdDSA), &claims, &key).map_err(|_| SigningError::Key)
}

/// Checks that a text is a role.
///
/// # Errors
///
/// The reason why it is none.
pub fn check_role(text: &str) -> Result<(), InvalidRole> {
    text.parse::<AccessRole>().map(drop)
}

//! Public keys of the issuers of tokens, and verification of a token with them.

use std::{fs, path::Path};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

use super::{
    claims::{ClaimRules, Claims, InvalidClaim, check},
    config::{AuthConfig, IssuerConfig},
};
use stead_state::authorization::Caller;

/// Longest token.
pub(super) const TOKEN_LEN_MAX: usize = 8 << 10;
/// Most keys of one issuer: the one in use, and the next, while keys are rolled over.
const KEYS_MAX: usize = 8;
/// Longest file of keys.
const FILE_LEN_MAX: u64 = 64 << 10;
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// Issuer with its keys.
struct Issuer {
    config: IssuerConfig,
    keys: Vec<DecodingKey>,
}

/// Issuers with their keys, as their files were when they were read.
pub(super) struct Issuers {
    issuers: Vec<Issuer>,
    /// Content of the files.
    files: Vec<String>,
}

/// Reason why a token does not count. It holds nothing of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidToken {
    #[error("the token is longer than {TOKEN_LEN_MAX} bytes")]
    Length,
    #[error("the token is no JSON web token: three parts of base64url, separated by dots")]
    Form,
    #[error("the token's header alg is not EdDSA: let the issuer sign with an Ed25519 key")]
    Algorithm,
    #[error("the claims of the token are incomplete or of a wrong type: iss, sub, aud, iat and exp are needed")]
    Claims,
    #[error("claim iss: is none of the issuers that this node trusts: see auth.issuers")]
    Issuer,
    #[error("the signature of the token is not by a key of issuer {0}: get a new one, or compare its key file")]
    Signature(String),
    #[error(transparent)]
    Claim(#[from] InvalidClaim),
}

/// Error of a file of public keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    #[error("it is longer than {FILE_LEN_MAX} bytes")]
    Length,
    #[error(
        "it holds no Ed25519 public key in PEM (BEGIN PUBLIC KEY), or more than {KEYS_MAX}: `stead auth keygen` makes one"
    )]
    Content,
}

impl Issuers {
    /// Reads the keys of all issuers.
    ///
    /// # Errors
    ///
    /// The issuer whose file cannot be used.
    pub(super) fn load(config: &AuthConfig) -> Result<Self, (IssuerConfig, KeyFileError)> {
        let mut loaded = Self {
            issuers: Vec::new(),
            files: Vec::new(),
        };
        for issuer in &config.issuers {
            let failed = |error| (issuer.clone(), error);
            let text = read(&issuer.public_key_file).map_err(failed)?;
            let keys = parse_keys(&text).ok_or(KeyFileError::Content).map_err(failed)?;
            loaded.files.push(text);
            loaded.issuers.push(Issuer {
                config: issuer.clone(),
                keys,
            });
        }
        Ok(loaded)
    }

    /// Tells whether the files had the same content when others were read.
    pub(super) fn is_same(&self, others: &Self) -> bool {
        self.files == others.files
    }

    /// Verifies a token; returns its caller, and its end in milliseconds since 1970.
    pub(super) fn verify(
        &self,
        token: &str,
        config: &AuthConfig,
        cluster: &str,
        now_ms: u64,
    ) -> Result<(Caller, u64), InvalidToken> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(InvalidToken::Length);
        }
        let header = decode_header(token).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            // An algorithm that the library does not know is no header to it.
            let is_algorithm = matches!(error.kind(), ErrorKind::InvalidAlgorithmName | ErrorKind::Json(_));
            if is_algorithm {
                InvalidToken::Algorithm
            } else {
                InvalidToken::Form
            }
        })?;
        if header.alg != Algorithm::EdDSA {
            return Err(InvalidToken::Algorithm);
        }
        // Read before the signature is verified, to find the keys, and for nothing else.
        let named = unverified_issuer(token).ok_or(InvalidToken::Claims)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.config.name == named);
        let issuer = issuer.ok_or(InvalidToken::Issuer)?;
        let claims = issuer.claims(token)?;
        let rules = ClaimRules {
            issuer: &issuer.config.name,
            cluster,
            grants_roles: issuer.config.grants_roles,
            is_emergency: issuer.config.is_emergency,
            clock_leeway: config.clock_leeway,
            lifetime_max: config.token_lifetime_max,
        };
        Ok(check(&claims, rules, now_ms)?)
    }
}

impl Issuer {
    /// Returns the claims of a token that one of the keys has signed.
    fn claims(&self, token: &str) -> Result<Claims, InvalidToken> {
        let mut failure = InvalidToken::Signature(self.config.name.clone());
        for key in &self.keys {
            match decode::<Claims>(token, key, &signature_only()) {
                Ok(decoded) => return Ok(decoded.claims),
                // The signature is right, the claims are not.
                Err(error) if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_)) => {
                    failure = InvalidToken::Claims;
                }
                Err(_) => {}
            }
        }
        Err(failure)
    }
}

/// Validation of the signature alone: the claims are checked by [`check`], whose time is an argument.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn unverified_issuer(token: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    #[derive(serde::Deserialize)]
    struct Named {
        iss: String,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok().map(|named: Named| named.iss)
}

fn read(path: &Path) -> Result<String, KeyFileError> {
    if fs::metadata(path).map_err(KeyFileError::Read)?.len() > FILE_LEN_MAX {
        return Err(KeyFileError::Length);
    }
    fs::read_to_string(path).map_err(KeyFileError::Read)
}

/// Reads one key or several, one after the other.
fn parse_keys(text: &str) -> Option<Vec<DecodingKey>> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(PEM_END) {
        let (pem, after) = rest.split_at(end + PEM_END.len());
        keys.push(DecodingKey::from_ed_pem(pem.trim().as_bytes()).ok()?);
        rest = after;
    }
    (!keys.is_empty() && keys.len() <= KEYS_MAX && rest.trim().is_empty()).then_some(keys)
}

#[cfg(test)]
#[path = "issuers_test.rs"]
mod issuers_test;

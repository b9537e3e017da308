use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    super::{
        config::AuthMode,
        signing::{IssuerKeys, TokenRequest, generate_issuer_keys, sign_token},
    },
    *,
};

const NOW: u64 = 1_000_000;

/// Issuers `corp`, which may not give roles, and `dev`, which may, with their private keys.
struct World {
    _folder: tempfile::TempDir,
    config: AuthConfig,
    keys: BTreeMap<&'static str, IssuerKeys>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = BTreeMap::new();
        let mut issuers = Vec::new();
        for name in ["corp", "dev"] {
            let made = generate_issuer_keys().unwrap();
            let public_key_file = folder.path().join(name);
            fs::write(&public_key_file, &made.public_key).unwrap();
            issuers.push(IssuerConfig {
                name: name.into(),
                public_key_file,
                grants_roles: name == "dev",
                is_emergency: false,
            });
            keys.insert(name, made);
        }
        let config = AuthConfig {
            mode: AuthMode::Required,
            issuers,
            clock_leeway: Duration::from_secs(60),
            token_lifetime_max: Duration::from_secs(3_600),
            http_open: Vec::new(),
        };
        Self {
            _folder: folder,
            config,
            keys,
        }
    }

    fn token(&self, key: &str, issuer: &str) -> String {
        let request = TokenRequest {
            issuer: issuer.into(),
            subject: "ada".into(),
            cluster: "prod".into(),
            roles: Vec::new(),
            issued: NOW,
            lifetime: 600,
        };
        sign_token(&self.keys[key].private_key, &request).unwrap()
    }

    fn verify(&self, token: &str) -> Result<String, String> {
        let issuers = Issuers::load(&self.config).map_err(|(_, error)| error.to_string())?;
        let verified = issuers.verify(token, &self.config, "prod", NOW * 1_000);
        verified
            .map(|(caller, _)| caller.subject.to_string())
            .map_err(|error| error.to_string())
    }
}

fn part(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

#[test]
fn token_of_known_issuer_is_verified() {
    let world = World::new();
    assert_eq!(world.verify(&world.token("corp", "corp")), Ok("token/corp/ada".into()));
}

#[test]
fn token_that_does_not_count_is_refused_without_showing_it() {
    let world = World::new();
    let good = world.token("corp", "corp");
    let parts: Vec<&str> = good.split('.').collect();
    let (payload, signature) = (parts[1], parts[2]);
    let forged_claims = r#"{"iss":"corp","sub":"root","aud":"prod","iat":1000000,"exp":1000600}"#;
    let with_header = |header: &str| format!("{}.{payload}.{signature}", part(header));
    for (token, words) in [
        (
            world.token("dev", "corp"),
            "the signature of the token is not by a key of issuer corp",
        ),
        (world.token("corp", "other"), "claim iss: is none of the issuers"),
        (with_header(r#"{"alg":"none"}"#), "alg is not EdDSA"),
        (with_header(r#"{"alg":"HS256"}"#), "alg is not EdDSA"),
        (with_header(r#"{"alg":"RS256"}"#), "alg is not EdDSA"),
        (format!("{}.{payload}.", part(r#"{"alg":"none"}"#)), "alg is not EdDSA"),
        (
            format!("{}.{}.{signature}", parts[0], part(forged_claims)),
            "the signature of the token",
        ),
        (
            format!("{}.{payload}.{}", parts[0], &signature[1..]),
            "the signature of the token",
        ),
        (
            format!("{}.{}.{signature}", parts[0], part("{}")),
            "the claims of the token are incomplete",
        ),
        ("secret".into(), "no JSON web token"),
        (String::new(), "no JSON web token"),
        ("a".repeat(TOKEN_LEN_MAX + 1), "longer than 8192 bytes"),
    ] {
        let refused = world.verify(&token).unwrap_err();
        assert!(refused.contains(words), "{words}: {refused}");
        assert!(!refused.contains("secret") && !refused.contains(signature), "{refused}");
    }
}

/// The next key is added to the file before tokens are signed with it, and the old one taken out when the last of its
/// tokens has ended.
#[test]
fn both_keys_of_file_count_during_rollover() {
    let world = World::new();
    let file = &world.config.issuers[0].public_key_file;
    let both = format!("{}\n{}", world.keys["corp"].public_key, world.keys["dev"].public_key);
    fs::write(file, both).unwrap();
    for key in ["corp", "dev"] {
        world.verify(&world.token(key, "corp")).unwrap();
    }
    fs::write(file, &world.keys["dev"].public_key).unwrap();
    assert!(world.verify(&world.token("corp", "corp")).is_err());
}

#[test]
fn file_that_holds_no_public_key_is_refused() {
    let world = World::new();
    let file = &world.config.issuers[0].public_key_file;
    let private = &world.keys["corp"].private_key;
    let public = &world.keys["corp"].public_key;
    for text in [
        "",
        "ssh-ed25519 AAAA",
        private,
        &format!("{public}x"),
        &public.repeat(KEYS_MAX + 1),
    ] {
        fs::write(file, text).unwrap();
        let refused = world.verify("a.b.c").unwrap_err();
        assert!(refused.contains("holds no Ed25519 public key in PEM"), "{refused}");
    }
    fs::remove_file(file).unwrap();
    assert!(world.verify("a.b.c").unwrap_err().contains("cannot be read"));
}

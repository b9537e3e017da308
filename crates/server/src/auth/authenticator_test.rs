use std::fs;

use super::{
    super::{
        access::Access,
        access_fixture,
        config::IssuerConfig,
        signing::{TokenRequest, generate_issuer_keys, sign_token},
    },
    *,
};

struct World {
    folder: tempfile::TempDir,
    auth: Authenticator,
    private_key: String,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = generate_issuer_keys().unwrap();
        let public_key_file = folder.path().join("dev");
        fs::write(&public_key_file, &keys.public_key).unwrap();
        let config = AuthConfig {
            mode: AuthMode::Required,
            issuers: vec![IssuerConfig {
                name: "dev".into(),
                public_key_file,
                grants_roles: true,
                is_emergency: false,
            }],
            clock_leeway: Duration::from_secs(60),
            token_lifetime_max: Duration::from_secs(3_600),
            http_open: vec!["/route".into()],
        };
        let context = Arc::into_inner(access_fixture::required()).unwrap();
        Self {
            auth: Authenticator::new(config, "prod".into(), context).unwrap(),
            private_key: keys.private_key,
            folder,
        }
    }

    fn token(&self, roles: &[&str]) -> String {
        let request = TokenRequest {
            issuer: "dev".into(),
            subject: "ada".into(),
            cluster: "prod".into(),
            roles: roles.iter().map(ToString::to_string).collect(),
            // The clock of the fixture stands at zero.
            issued: 0,
            lifetime: 600,
        };
        sign_token(&self.private_key, &request).unwrap()
    }

    fn access(&self, authorization: &str) -> Result<Access, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, authorization.parse().unwrap());
        let credential = self.auth.authenticate(None, &headers)?;
        Ok(Access::of_caller(credential, self.auth.context().clone()))
    }
}

const GET: &str = "/stead.v1.KvService/Get";
const PROMOTE: &str = "/stead.admin.v1.PromotionService/Promote";

#[test]
fn bearer_token_is_verified_once_and_cached() {
    let world = World::new();
    let header = format!("bearer {}", world.token(&["tenant-reader:acme"]));
    let first = world.access(&header).unwrap();
    assert!(first.is_same_caller(&world.access(&header).unwrap()));
    first.clone().for_method(GET).unwrap();
    let denied = first.for_method(PROMOTE).unwrap_err();
    assert_eq!(denied.kind, ErrorKind::PermissionDenied);
    for header in ["Basic YWRhOnB3", "Bearer", "Bearer x"] {
        let refused = world.access(header).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unauthenticated);
        assert!(!refused.message.contains("YWRh"), "{refused}");
    }
}

#[test]
fn cached_token_does_not_outlive_its_key() {
    let world = World::new();
    let header = format!("Bearer {}", world.token(&[]));
    world.access(&header).unwrap();
    let next = generate_issuer_keys().unwrap();
    fs::write(world.folder.path().join("dev"), next.public_key).unwrap();
    world
        .auth
        .use_issuers(Issuers::load(&world.auth.config).map_err(|(_, error)| error).unwrap());
    assert!(world.access(&header).unwrap_err().message.contains("signature"));
}

#[test]
fn request_without_credential_is_refused_and_certificate_names_caller() {
    let world = World::new();
    let of = |certificate: Option<CertificateIdentity>| {
        let credential = world.auth.authenticate(certificate.as_ref(), &HeaderMap::new())?;
        Access::of_caller(credential, world.auth.context().clone()).for_method(PROMOTE)
    };
    assert_eq!(of(None).unwrap_err().kind, ErrorKind::Unauthenticated);
    let operator = CertificateIdentity::Operator { name: "ada".into() };
    assert_eq!(
        of(Some(operator)).unwrap().caller().unwrap().subject.as_str(),
        "operator/ada"
    );
    let client = CertificateIdentity::Client { name: "billing".into() };
    assert_eq!(of(Some(client)).unwrap_err().kind, ErrorKind::PermissionDenied);
    let node = CertificateIdentity::Node {
        region: "eu-west".into(),
        name: "n1".into(),
    };
    assert_eq!(of(Some(node)).unwrap_err().kind, ErrorKind::Unauthenticated);
    let unnamed = CertificateIdentity::Operator { name: "a b".into() };
    assert_eq!(of(Some(unnamed)).unwrap_err().kind, ErrorKind::Unauthenticated);
}

#[test]
fn only_named_http_paths_are_open() {
    let world = World::new();
    for (path, is_open) in [
        ("/route", true),
        ("/route/acme", true),
        ("/routes", false),
        ("/metrics", false),
    ] {
        assert_eq!(world.auth.is_open_path(path), is_open, "{path}");
    }
}

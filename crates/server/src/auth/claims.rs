//! Claims of a token, and the decision whether they count at a time.

use std::time::Duration;

use serde::Deserialize;
use stead_state::authorization::{AccessRole, Caller, Subject};

/// Most roles of a token.
const ROLES_MAX: usize = 64;
/// Longest life of an emergency token: it is made beforehand, and must outlast the day it is needed on.
pub(super) const EMERGENCY_LIFETIME_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// Claims of a token, of the types that they must have: one of another type makes the token invalid.
#[derive(Deserialize)]
pub(super) struct Claims {
    /// Issuer.
    pub(super) iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    iat: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    stead_roles: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Rules for the claims of an issuer's tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClaimRules<'a> {
    /// Name of the issuer.
    pub(super) issuer: &'a str,
    /// Name of the cluster: the audience.
    pub(super) cluster: &'a str,
    /// Whether tokens may give roles.
    pub(super) grants_roles: bool,
    /// Whether tokens are for emergencies.
    pub(super) is_emergency: bool,
    /// Longest difference of clocks.
    pub(super) clock_leeway: Duration,
    /// Longest life.
    pub(super) lifetime_max: Duration,
}

/// Reason why a token does not count: the claim, and what to do. It holds nothing of the token but times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidClaim {
    #[error("claim exp: the token ended {0} s ago: get a new one")]
    Expired(u64),
    #[error("claim {claim}: the token begins in {seconds} s: compare the clocks of issuer and node")]
    Future { claim: &'static str, seconds: u64 },
    #[error("claim exp: the token lives for {0} s, at most {1} s are allowed: let the issuer make shorter ones")]
    Lifetime(u64, u64),
    #[error("claim exp: is not after iat: let the issuer correct it")]
    EndsBeforeBeginning,
    #[error("claim aud: does not name this cluster, {0}: get a token for it")]
    Audience(String),
    #[error("claim iss: is not {0}, whose key has signed it")]
    Issuer(String),
    #[error("claim sub: is empty, too long, or not printable ASCII: let the issuer name the caller")]
    Subject,
    #[error("claim stead_roles: issuer {0} may not give roles: bind them with `stead role grant`, or set grants_roles")]
    RolesNotGranted(String),
    #[error("claim stead_roles: names more than {ROLES_MAX} roles, or one that is none")]
    Roles,
}

/// Returns the caller that claims describe, and the end of its token in milliseconds since 1970, leeway included.
///
/// # Errors
///
/// The first claim that does not count at `now_ms`.
pub(super) fn check(claims: &Claims, rules: ClaimRules<'_>, now_ms: u64) -> Result<(Caller, u64), InvalidClaim> {
    let (now, leeway) = (now_ms / 1_000, rules.clock_leeway.as_secs());
    if claims.iss != rules.issuer {
        return Err(InvalidClaim::Issuer(rules.issuer.to_owned()));
    }
    let is_for_cluster = match &claims.aud {
        Audience::One(audience) => audience == rules.cluster,
        Audience::Many(audiences) => audiences.iter().any(|audience| audience == rules.cluster),
    };
    if !is_for_cluster {
        return Err(InvalidClaim::Audience(rules.cluster.to_owned()));
    }
    check_times(claims, rules, now)?;
    let subject = Subject::token(rules.issuer, &claims.sub).map_err(|_| InvalidClaim::Subject)?;
    let caller = Caller {
        subject,
        roles: roles(claims, rules)?,
        is_emergency: rules.is_emergency,
    };
    Ok((caller, claims.exp.saturating_add(leeway).saturating_mul(1_000)))
}

fn check_times(claims: &Claims, rules: ClaimRules<'_>, now: u64) -> Result<(), InvalidClaim> {
    let leeway = rules.clock_leeway.as_secs();
    if claims.exp.saturating_add(leeway) <= now {
        return Err(InvalidClaim::Expired(now - claims.exp));
    }
    for (claim, time) in [("nbf", claims.nbf), ("iat", Some(claims.iat))] {
        if let Some(time) = time.filter(|time| *time > now.saturating_add(leeway)) {
            let seconds = time - now;
            return Err(InvalidClaim::Future { claim, seconds });
        }
    }
    let lifetime = claims.exp.checked_sub(claims.iat).filter(|lifetime| *lifetime > 0);
    let lifetime = lifetime.ok_or(InvalidClaim::EndsBeforeBeginning)?;
    let max = match rules.is_emergency {
        true => EMERGENCY_LIFETIME_MAX,
        false => rules.lifetime_max,
    };
    if lifetime > max.as_secs() {
        return Err(InvalidClaim::Lifetime(lifetime, max.as_secs()));
    }
    Ok(())
}

fn roles(claims: &Claims, rules: ClaimRules<'_>) -> Result<Vec<AccessRole>, InvalidClaim> {
    if claims.stead_roles.is_empty() {
        return Ok(Vec::new());
    }
    if !rules.grants_roles && !rules.is_emergency {
        return Err(InvalidClaim::RolesNotGranted(rules.issuer.to_owned()));
    }
    if claims.stead_roles.len() > ROLES_MAX {
        return Err(InvalidClaim::Roles);
    }
    let roles = claims.stead_roles.iter().map(|role| role.parse());
    roles.collect::<Result<_, _>>().map_err(|_| InvalidClaim::Roles)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn rules() -> ClaimRules<'static> {
        ClaimRules {
            issuer: "corp",
            cluster: "prod",
            grants_roles: true,
            is_emergency: false,
            clock_leeway: Duration::from_secs(60),
            lifetime_max: Duration::from_secs(3_600),
        }
    }

    fn valid() -> serde_json::Value {
        json!({ "iss": "corp", "sub": "ada", "aud": "prod", "iat": NOW, "exp": NOW + 600, "stead_roles": ["auditor"] })
    }

    fn checked(change: serde_json::Value, rules: ClaimRules<'_>) -> Result<(Caller, u64), String> {
        let mut claims = valid();
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let claims: Claims = serde_json::from_value(claims).map_err(|error| format!("type: {error}"))?;
        check(&claims, rules, NOW * 1_000).map_err(|error| error.to_string())
    }

    #[test]
    fn claims_become_caller() {
        let (caller, expires) = checked(json!({}), rules()).unwrap();
        assert_eq!((caller.subject.as_str(), caller.roles.len()), ("token/corp/ada", 1));
        assert_eq!(expires, (NOW + 660) * 1_000);
        checked(json!({ "aud": ["other", "prod"] }), rules()).unwrap();
    }

    #[test]
    fn claim_that_does_not_count_is_named() {
        for (change, words) in [
            (json!({ "exp": NOW - 60 }), "claim exp: the token ended 60 s ago"),
            (
                json!({ "exp": NOW - 61, "iat": NOW - 600 }),
                "claim exp: the token ended",
            ),
            (
                json!({ "iat": NOW + 61, "exp": NOW + 600 }),
                "claim iat: the token begins in 61 s",
            ),
            (json!({ "nbf": NOW + 61 }), "claim nbf: the token begins in 61 s"),
            (json!({ "exp": NOW + 3_601 }), "lives for 3601 s, at most 3600 s"),
            (json!({ "exp": u64::MAX }), "claim exp: the token lives for"),
            (json!({ "iat": NOW + 30, "exp": NOW + 20 }), "is not after iat"),
            (json!({ "aud": "other" }), "claim aud: does not name this cluster, prod"),
            (json!({ "aud": [] }), "claim aud"),
            (json!({ "iss": "other" }), "claim iss: is not corp"),
            (json!({ "sub": "" }), "claim sub"),
            (json!({ "sub": "a b" }), "claim sub"),
            (json!({ "stead_roles": ["root"] }), "claim stead_roles: names more than"),
            (json!({ "nbf": "soon" }), "type:"),
            (json!({ "exp": "never" }), "type:"),
            (json!({ "exp": -1 }), "type:"),
        ] {
            let refused = checked(change.clone(), rules()).unwrap_err();
            assert!(refused.contains(words), "{change}: {refused}");
        }
    }

    #[test]
    fn clocks_a_minute_apart_are_allowed_for() {
        checked(json!({ "exp": NOW - 59, "iat": NOW - 600 }), rules()).unwrap();
        checked(json!({ "iat": NOW + 60, "nbf": NOW + 60 }), rules()).unwrap();
    }

    #[test]
    fn roles_count_only_from_issuer_that_may_give_them() {
        let without = ClaimRules {
            grants_roles: false,
            ..rules()
        };
        let refused = checked(json!({}), without).unwrap_err();
        assert!(refused.contains("issuer corp may not give roles"), "{refused}");
        checked(json!({ "stead_roles": [] }), without).unwrap();
        let emergency = ClaimRules {
            is_emergency: true,
            ..without
        };
        let year = json!({ "exp": NOW + 365 * 24 * 3_600 });
        let (caller, _) = checked(year.clone(), emergency).unwrap();
        assert!(caller.is_emergency && caller.roles.len() == 1);
        assert!(checked(year, rules()).unwrap_err().contains("claim exp"));
    }
}

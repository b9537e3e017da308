//! Task that follows the files of certificates: loads what has changed, and warns before anything expires.

use std::{convert::Infallible, sync::Arc, time::Duration};

use stead_tls::{Credentials, Reload};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::metrics::{TlsMetrics, seconds_left};
use crate::health::CheckResult;

/// Interval of looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Time before its expiry at which a certificate is warned of.
const EXPIRY_WARNING_SECONDS: f64 = 14.0 * 24.0 * 3600.0;
/// Looks between two warnings about the same certificate: an hour.
const LOOKS_PER_WARNING: u64 = 1_800;

/// Follows the files until the token fires.
pub(crate) async fn follow(
    credentials: Credentials,
    metrics: Arc<TlsMetrics>,
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 0_u64.. {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        match credentials.reload_in_background().await {
            Reload::Unchanged => {}
            Reload::Loaded => {
                metrics.count_reload();
                info!("certificates loaded: new connections use them");
            }
            Reload::Failed(failure) => {
                metrics.count_reload_failure();
                error!(%failure, "new certificates do not load: the old ones are used on");
            }
        }
        if look % LOOKS_PER_WARNING == 0 {
            warn_of_expiry(&credentials, wall());
        }
    }
    Ok(())
}

/// Checks that no certificate in use expires soon.
pub(super) fn check_expiry(credentials: &Credentials, now_ms: u64) -> CheckResult {
    let own = credentials.own().into_iter();
    let own = own.map(|own| (own.not_after, "this node's certificate", "stead cert rotate"));
    let ca = credentials.ca().into_iter();
    let ca = ca.map(|ca| (ca.not_after, "the CA", "stead cert rotate --new-ca"));
    let left = own
        .chain(ca)
        .map(|(end, what, remedy)| (seconds_left(end, now_ms), what, remedy));
    match left.min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((left, what, remedy)) => judge_expiry(left, what, remedy),
        None => Ok("none are in use".to_owned()),
    }
}

fn judge_expiry(seconds_left: f64, what: &str, remedy: &str) -> CheckResult {
    let (days, hours) = ((seconds_left / 86_400.0).floor(), (seconds_left / 3_600.0).floor());
    let left = if days >= 2.0 {
        format!("{days} days")
    } else {
        format!("{hours} hours")
    };
    if seconds_left <= 0.0 {
        Err(format!("{what} has expired: run `{remedy}`"))
    } else if seconds_left < EXPIRY_WARNING_SECONDS {
        Err(format!("{what} expires in {left}: run `{remedy}`"))
    } else {
        Ok(format!("the first to expire is {what}, in {left}"))
    }
}

fn warn_of_expiry(credentials: &Credentials, now_ms: u64) {
    let own = credentials
        .own()
        .into_iter()
        .map(|certificate| (&credentials.files().certificate, certificate));
    for (file, certificate) in own {
        let left = seconds_left(certificate.not_after, now_ms);
        if left < EXPIRY_WARNING_SECONDS {
            warn!(file = ?file, hours_left = left / 3600.0, "certificate expires soon: run `stead cert rotate`");
        }
    }
    for certificate in credentials.ca() {
        let left = seconds_left(certificate.not_after, now_ms);
        if left < EXPIRY_WARNING_SECONDS {
            let subject = certificate.subject;
            warn!(
                subject,
                hours_left = left / 3600.0,
                "CA expires soon: run `stead cert rotate --new-ca`"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_warning_two_weeks_before() {
        let judge = |days: f64| judge_expiry(days * 86_400.0, "this node's certificate", "stead cert rotate");
        assert_eq!(
            judge(14.1),
            Ok("the first to expire is this node's certificate, in 14 days".to_owned())
        );
        let warned = |text: &str| Err(format!("this node's certificate {text}: run `stead cert rotate`"));
        assert_eq!(judge(9.9), warned("expires in 9 days"));
        assert_eq!(judge(1.5), warned("expires in 36 hours"));
        assert_eq!(judge(-1.0), warned("has expired"));
    }
}

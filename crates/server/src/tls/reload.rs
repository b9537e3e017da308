//! Task that follows the files of certificates: loads what has changed, and warns before anything expires.

use std::{convert::Infallible, sync::Arc, time::Duration};

use stead_tls::{Credentials, Reload};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::metrics::{TlsMetrics, seconds_left};

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

//! Time of one decision about a key, by the number of roles of its caller.

use std::{hint::black_box, time::Instant};

use anyhow::Result;
use stead_state::authorization::{AccessRole, KeyAccess, KeyRange, Need, decide};
use stead_types::TenantName;

const ROLES: [usize; 3] = [1, 8, 64];
const DECISIONS: u32 = 1_000_000;
const ROUNDS: usize = 3;

/// Prints how long a decision takes whose role is the last one.
pub(crate) fn measure() -> Result<()> {
    let tenant: TenantName = "acme".parse()?;
    println!("| roles of the caller | ns of a decision, median | lowest | highest |");
    println!("| --- | --- | --- | --- |");
    for count in ROLES {
        let mut roles: Vec<AccessRole> = Vec::new();
        for other in 1..count {
            roles.push(format!("tenant-reader:other-{other}:orders/").parse()?);
        }
        roles.push("tenant-reader:acme:orders/".parse()?);
        let mut times: Vec<f64> = (0..ROUNDS).map(|_| decisions(&roles, &tenant)).collect();
        times.sort_by(f64::total_cmp);
        println!(
            "| {count} | {:.0} | {:.0} | {:.0} |",
            times[ROUNDS / 2],
            times[0],
            times[ROUNDS - 1]
        );
    }
    Ok(())
}

/// Returns the nanoseconds of one decision.
fn decisions(roles: &[AccessRole], tenant: &TenantName) -> f64 {
    let began = Instant::now();
    for _ in 0..DECISIONS {
        let need = Need::Keys {
            tenant,
            access: KeyAccess::Read,
            range: KeyRange::Key(black_box(b"orders/1234")),
        };
        assert!(decide(black_box(roles).iter(), &need).is_ok());
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
}

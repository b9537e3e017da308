//! A tenant takes less than 400 bytes of a view's memory: every node holds every tenant.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use stead_state::directory::{
    Addresses, AuditContext, Command, Directory, DirectoryChange, DirectoryView, Followers, InitialCluster,
    InitialNode, NewTenant,
};
use stead_types::{Durability, RegionName, TenantLimits};

const TENANTS: usize = 20_000;
const BYTES_MAX: usize = 400;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Returns the memory that malloc takes for a block: a word more, in steps of 16 bytes, at least 32.
fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

#[expect(unsafe_code, reason = "counting what is allocated needs an allocator")]
// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn initial() -> InitialCluster {
    let regions: Vec<RegionName> = ["us-east", "eu-west", "ap-south"]
        .map(|name| name.parse().unwrap())
        .into();
    let node = |region: &RegionName| InitialNode {
        name: region.to_string(),
        region: region.clone(),
        addresses: Addresses::default(),
        witness: false,
    };
    InitialCluster {
        cluster: "test".into(),
        nodes: regions.iter().map(node).collect(),
        regions: regions
            .iter()
            .map(|name| (name.clone(), "EU".parse().unwrap()))
            .collect(),
        groups_per_region: 4,
    }
}

#[test]
fn tenant_takes_less_than_400_bytes_of_a_view() {
    let mut directory = Directory::default();
    directory.apply(0, Command::Bootstrap(initial())).result.unwrap();
    let mut changes = Vec::with_capacity(TENANTS);
    for number in 0..TENANTS {
        let tenant = NewTenant {
            on_lease_loss: stead_state::shard::record::LeaseLossPolicy::Stop,
            name: format!("customer-{number:06}").parse().unwrap(),
            home: "eu-west".parse().unwrap(),
            followers: Followers::AllAdmitted,
            residency: Vec::new(),
            durability: Durability::Region,
            labels: BTreeMap::new(),
            limits: TenantLimits::default(),
        };
        let applied = directory.apply(0, Command::CreateTenant(AuditContext::default(), tenant));
        changes.extend(applied.changes.iter().map(DirectoryChange::encode));
    }
    let mut view = DirectoryView::default();
    for change in changes {
        view.apply(DirectoryChange::decode(change).unwrap());
    }
    assert_eq!(view.tenant_count(), TENANTS);
    let with_view = ALLOCATED.load(Ordering::Relaxed);
    drop(view);
    let bytes = (with_view - ALLOCATED.load(Ordering::Relaxed)) / TENANTS;
    assert!(bytes < BYTES_MAX, "{bytes} bytes a tenant");
    assert!(bytes > 100, "{bytes} bytes a tenant: nothing was measured");
    println!("{bytes} bytes a tenant");
}

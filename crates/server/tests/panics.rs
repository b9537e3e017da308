//! The panic hook, in a process of its own.

use std::thread;

use stead_store::health::{Health, catch_panic};

#[test]
fn panic_hook_uncaught_library_panic_fails_node() {
    let health = Health::default();
    std::panic::set_hook(Box::new(stead_server::panics::hook(health.clone())));
    catch_panic(|| panic!("caught")).unwrap_err();
    assert!(health.failure().is_none());
    let library = thread::Builder::new().name("sled-io-1".to_owned());
    let ended = library.spawn(|| panic!("a damaged file")).unwrap().join();
    ended.unwrap_err();
    let failure = health.failure().unwrap();
    assert_eq!(failure.to_string(), "the node failed while running a library");
    let reason = failure.source.to_string();
    let expected = "panic: a damaged file in thread sled-io-1 at crates/server/tests/panics.rs:";
    assert!(reason.starts_with(expected), "{reason}");
}

//! The table of requirements, compared with the methods that the client listener serves.

use std::collections::BTreeSet;

use stead_api::methods;
use stead_state::authorization::REQUIREMENTS;

/// Invariant 2: a method without a row would be refused; a row without a method is a slip of the pen.
#[test]
fn every_method_has_a_requirement() {
    let sets = [
        stead_api::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let served = sets.into_iter().flat_map(|set| methods::paths(set).unwrap());
    // Those of the peer listener are for nodes.
    let served: BTreeSet<String> = served.filter(|path| !path.starts_with("stead.internal.")).collect();
    let rows: BTreeSet<String> = REQUIREMENTS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(rows, served);
}

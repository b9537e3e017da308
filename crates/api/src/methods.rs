//! Methods of services, by path, from descriptors.

use std::collections::BTreeSet;

use prost::{DecodeError, Message};
use prost_types::FileDescriptorSet;

/// Returns the paths of all methods in a descriptor set, such as `stead.v1.KvService/Get`.
///
/// # Errors
///
/// The bytes are no descriptor set.
pub fn paths(descriptors: &[u8]) -> Result<BTreeSet<String>, DecodeError> {
    let set = FileDescriptorSet::decode(descriptors)?;
    let mut paths = BTreeSet::new();
    for file in set.file {
        let package = file.package.unwrap_or_default();
        for service in file.service {
            let name = service.name.unwrap_or_default();
            let methods = service.method.into_iter().filter_map(|method| method.name);
            paths.extend(methods.map(|method| format!("{package}.{name}/{method}")));
        }
    }
    Ok(paths)
}

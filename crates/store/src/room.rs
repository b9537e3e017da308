//! Room on a disk: how much there is, and errors for want of it.

use std::error::Error;
use std::io;
use std::path::Path;

use crate::health::NodeFailure;

/// Returns the bytes of disk that are free for this process in a folder; `None` where the system does not tell.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Tells whether an error says that a disk is full, or a quota of the file system used up. An error of a sync that a
/// library turned into a panic is none: what it has lost is unknown.
pub fn is_out_of_room(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // Its cause is shared, and what shares it is no link of the chain.
        if let Some(failure) = error.downcast_ref::<NodeFailure>() {
            cause = Some(&*failure.source);
            continue;
        }
        cause = match error.downcast_ref::<io::Error>() {
            None => error.source(),
            Some(error) if is_out_of_room_kind(error.kind()) => return true,
            // `source` of an error that wraps another one skips that one.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        };
    }
    false
}

fn is_out_of_room_kind(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_room_is_found_in_wrapped_errors() {
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(is_out_of_room(&full()));
        assert!(is_out_of_room(&io::Error::from_raw_os_error(libc::EDQUOT)));
        assert!(is_out_of_room(&io::Error::other(raft_engine::Error::Io(full()))));
        assert!(is_out_of_room(&io::Error::from(sled::Error::Io(full()))));
        assert!(is_out_of_room(&io::Error::other(fjall::Error::Io(full()))));
        let failure = NodeFailure::of_node("writing rows", io::Error::other(full()));
        assert!(is_out_of_room(&failure), "{failure}");
        for other in [libc::EIO, libc::EACCES, libc::EMFILE] {
            assert!(!is_out_of_room(&io::Error::other(io::Error::from_raw_os_error(other))));
        }
    }

    #[test]
    fn free_bytes_are_known_where_there_is_a_folder() {
        assert!(free_bytes(Path::new("/")).is_some());
        assert_eq!(free_bytes(Path::new("/no/such/folder")), None);
    }
}

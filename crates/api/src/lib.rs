//! Generated messages and their conversions, the table of errors, and channels to nodes.
//!
//! This crate does not know what a message is used for.

pub mod caller_metadata;
pub mod convert;
pub mod message_codec;
pub mod message_lists;
pub mod methods;
pub mod net;
pub mod operation;
pub mod peer_codec;
pub mod peer_identity;
pub mod status;

/// Messages and services, one module a proto package, generated from `proto/` and checked in.
#[expect(
    missing_docs,
    clippy::too_many_lines,
    clippy::allow_attributes,
    reason = "generated code"
)]
pub mod proto {
    /// `stead.v1`, for services.
    pub mod v1 {
        include!("generated/stead.v1.rs");
    }
    /// Packages for operators.
    pub mod admin {
        /// `stead.admin.v1`.
        pub mod v1 {
            include!("generated/stead.admin.v1.rs");
        }
    }
    /// Standard packages of Google.
    pub mod google {
        /// `google.longrunning`.
        pub mod longrunning {
            include!("generated/google.longrunning.rs");
        }
    }
    /// Packages between nodes.
    pub mod internal {
        /// `stead.internal.v1`.
        pub mod v1 {
            include!("generated/stead.internal.v1.rs");
        }
    }
}

// Generated code outside the package names it by its path below the root of all packages, which is the crate here.
use proto::google;

/// Descriptor set of all protos: for reflection, and for the compatibility test.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.binpb");

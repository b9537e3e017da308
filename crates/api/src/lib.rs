//! Generated messages and their conversions; the one table of errors; how connections are made.
//!
//! What a message is for is not known here.

pub mod convert;
pub mod net;
pub mod operation;
pub mod peer_codec;
pub mod status;

/// Messages and services, one module a proto package, generated from `proto/` and checked in.
#[expect(
    missing_docs,
    clippy::too_many_lines,
    clippy::allow_attributes,
    reason = "generated code"
)]
pub mod proto {
    /// For services: `stead.v1`.
    pub mod v1 {
        include!("generated/stead.v1.rs");
    }
    /// For operators.
    pub mod admin {
        /// `stead.admin.v1`.
        pub mod v1 {
            include!("generated/stead.admin.v1.rs");
        }
    }
    /// Between nodes.
    pub mod internal {
        /// `stead.internal.v1`.
        pub mod v1 {
            include!("generated/stead.internal.v1.rs");
        }
    }
}

/// Every proto as a descriptor set: for reflection, and for the check that nothing breaks.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.binpb");

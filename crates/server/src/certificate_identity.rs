//! Identity that a connection's certificate proves.

/// Identity in a verified certificate, from its URI name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateIdentity {
    /// Node: `stead://CLUSTER/node/REGION/NAME`.
    Node {
        /// Name of its region.
        region: String,
        /// Name of the node.
        name: String,
    },
    /// Service that uses the store: `stead://CLUSTER/client/NAME`.
    Client {
        /// Name of the service.
        name: String,
    },
    /// Person or tool that operates the cluster: `stead://CLUSTER/operator/NAME`.
    Operator {
        /// Name of the operator.
        name: String,
    },
}

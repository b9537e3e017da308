//! Idempotency: a write that is sent again has one effect.

use std::fmt;

/// A tenant's logged clock, in milliseconds since 1970; it never goes back. Zero means "none seen".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TenantTime(pub u64);

/// One running client library; drawn at random when it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u128);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one write of one client. Sending the same key again asks for the first outcome; it never writes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey {
    /// Who writes.
    pub client: ClientId,
    /// Which of its writes; each is used once.
    pub sequence: u64,
    /// The highest tenant time seen in any answer when the write was first sent, else zero.
    pub first_sent: TenantTime,
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.client, self.sequence, self.first_sent.0)
    }
}

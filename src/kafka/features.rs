//! The features that are told beside the APIs' versions (KIP-584): what is done here, at which level.

/// One feature.
pub(super) struct Feature {
    /// Kafka's name of it.
    pub(super) name: &'static str,
    /// The level that is done, the highest that this server knows.
    pub(super) level: i16,
}

/// group.version 1 is the new consumer group protocol (KIP-848), share.version 1 share groups (KIP-932). With
/// transaction.version 2 every transaction has an epoch of its own, and partitions are added by what is written to them
/// (KIP-890). Clients take the absence of others for level 0.
pub(super) static FEATURES: &[Feature] = &[
    Feature { name: "group.version", level: 1 },
    Feature { name: "share.version", level: 1 },
    Feature { name: "transaction.version", level: 2 },
];

/// Counts up when levels change, which they do not: they are what the binary can do.
pub(super) const FEATURES_EPOCH: i64 = 0;

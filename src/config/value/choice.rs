//! Values that are one word of a few.

use super::{Problem, Setting};
use crate::config::entry::Rule;

macro_rules! choices {
    ($(
        $(#[$meta:meta])+
        $name:ident { $( $(#[$variant_meta:meta])+ $variant:ident = $word:literal, )+ }
    )+) => {$(
        $(#[$meta])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_meta])+ $variant, )+
        }

        impl $name {
            /// The word as one writes it in a configuration.
            pub fn word(self) -> &'static str {
                match self {
                    $( $name::$variant => $word, )+
                }
            }
        }

        impl Setting for $name {
            const CHOICES: &'static [&'static str] = &[$($word),+];

            fn read(_rule: &Rule, text: &str) -> Result<Self, Problem> {
                match text {
                    $( $word => Ok($name::$variant), )+
                    _ => Err(Problem(format!("String must be one of: {}", Self::CHOICES.join(", ")))),
                }
            }

            fn show(&self) -> Option<String> {
                Some(self.word().to_owned())
            }
        }
    )+};
}

choices! {
    /// Which timestamp a record carries.
    TimestampType {
        /// The producer's.
        CreateTime = "CreateTime",
        /// The server's, set when the batch is appended.
        LogAppendTime = "LogAppendTime",
    }

    /// Which codec a topic asks for.
    CompressionType {
        /// What the producer chose.
        Producer = "producer",
        /// None.
        Uncompressed = "uncompressed",
        /// gzip.
        Gzip = "gzip",
        /// Snappy.
        Snappy = "snappy",
        /// LZ4.
        Lz4 = "lz4",
        /// Zstandard.
        Zstd = "zstd",
    }

    /// Whether groups change between the classic and the consumer protocol while they have members.
    MigrationPolicy {
        /// Both ways.
        Bidirectional = "bidirectional",
        /// From classic to consumer.
        Upgrade = "upgrade",
        /// From consumer to classic.
        Downgrade = "downgrade",
        /// Not at all.
        Disabled = "disabled",
    }

    /// How appended bytes reach the disk.
    WritePath {
        /// DMA where acknowledgements wait for the sync (`flush.messages=1`), the page cache elsewhere.
        Auto = "auto",
        /// Positioned writes into the page cache.
        PageCache = "page_cache",
        /// Direct I/O from an in-memory tail.
        Dma = "dma",
    }
}

impl MigrationPolicy {
    /// Whether a classic group may become a consumer group.
    pub fn may_upgrade(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Upgrade)
    }

    /// Whether a consumer group may become a classic one.
    pub fn may_downgrade(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Downgrade)
    }
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Old segments go by time and size.
    Delete,
    /// Only the last record of each key stays.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl CleanupPolicy {
    /// Whether retention removes old segments.
    pub fn deletes(self) -> bool {
        matches!(self, CleanupPolicy::Delete | CleanupPolicy::CompactAndDelete)
    }

    /// Whether the cleaner keeps only the last record of each key.
    pub fn compacts(self) -> bool {
        matches!(self, CleanupPolicy::Compact | CleanupPolicy::CompactAndDelete)
    }
}

/// The words are a list in any order, as in Kafka. Which policies users may choose is decided in `topic`.
impl Setting for CleanupPolicy {
    const CHOICES: &'static [&'static str] = &["delete"];

    fn read(_rule: &Rule, text: &str) -> Result<Self, Problem> {
        let (mut deletes, mut compacts) = (false, false);
        for word in text.split(',').map(str::trim) {
            match word {
                "delete" => deletes = true,
                "compact" => compacts = true,
                _ => return Err(Problem::new("String must be one of: delete, compact")),
            }
        }
        Ok(match (deletes, compacts) {
            (true, true) => CleanupPolicy::CompactAndDelete,
            (false, true) => CleanupPolicy::Compact,
            _ => CleanupPolicy::Delete,
        })
    }

    fn show(&self) -> Option<String> {
        let words = match self {
            CleanupPolicy::Delete => "delete",
            CleanupPolicy::Compact => "compact",
            CleanupPolicy::CompactAndDelete => "compact,delete",
        };
        Some(words.to_owned())
    }
}

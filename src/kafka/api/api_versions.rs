//! ApiVersions (key 18), versions 0 to 4.
//!
//! 1: throttle time | 3: flexible, the client's software, features (KIP-511, KIP-584) | 4: features from level 0.
//!
//! The reply's header never has tagged fields, so that a client newer than us can read it. An unknown version is
//! answered in version 0 with UNSUPPORTED_VERSION and the versions of this API alone. Features that are not listed stand
//! for things not done yet, and clients take their absence for level 0.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{API_ROWS, ApiRow, Outcome, RequestContext};
use crate::kafka::frame::{self, RequestHeader};

/// What clients may find switched on, beyond single APIs.
struct Feature {
    name: &'static str,
    /// The levels that this server can do.
    min: i16,
    max: i16,
    /// The level that is in force.
    level: i16,
}

/// Every feature that is done.
const FEATURES: &[Feature] = &[
    // 2: every transaction has an epoch of its own, partitions are added by what is written to them (KIP-890).
    Feature { name: "transaction.version", min: 0, max: 2, level: 2 },
];
/// Counts changes of the levels in force, of which there are none.
const FEATURES_EPOCH: i64 = 0;
/// The first version with features.
const FEATURES_VERSION: i16 = 3;
/// The first version with features that begin at level 0.
const ZERO_LEVEL_VERSION: i16 = 4;
/// The first version in which clients name their software.
const SOFTWARE_VERSION: i16 = 3;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let names = [&request.client_software_name, &request.client_software_version];
    if ctx.version() >= SOFTWARE_VERSION && !names.into_iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    let response = ApiVersionsResponse::default().with_api_keys(API_ROWS.iter().map(advertised).collect());
    if ctx.version() < FEATURES_VERSION {
        return response;
    }
    // Clients that ask in version 3 stumble over a feature that begins at level 0 (KAFKA-17492).
    let supported = FEATURES.iter().filter(|feature| feature.min > 0 || ctx.version() >= ZERO_LEVEL_VERSION);
    response
        .with_supported_features(supported.map(Feature::supported).collect())
        .with_finalized_features(FEATURES.iter().map(Feature::finalized).collect())
        .with_finalized_features_epoch(FEATURES_EPOCH)
}

impl Feature {
    fn supported(&self) -> SupportedFeatureKey {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(self.name))
            .with_min_version(self.min)
            .with_max_version(self.max)
    }

    fn finalized(&self) -> FinalizedFeatureKey {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(self.name))
            .with_min_version_level(self.level)
            .with_max_version_level(self.level)
    }
}

/// The answer to a version that is not served.
pub(in crate::kafka) fn too_new(header: &RequestHeader) -> Outcome {
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(vec![advertised(header.row)]);
    match frame::encode_reply_as(header, 0, &response) {
        Ok(reply) => Outcome::Reply(reply),
        Err(error) => Outcome::Close(error.to_string()),
    }
}

fn advertised(row: &ApiRow) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(row.key())
        .with_min_version(row.advertised_min())
        .with_max_version(row.max)
}

/// Kafka's rule: letters, digits, dots and dashes, beginning and ending with a letter or digit.
fn is_software_name(name: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_follow_kafkas_rule() {
        for name in ["librdkafka", "apache-kafka-java", "4.3.1", "v1.2.3-4"] {
            assert!(is_software_name(name), "{name}");
        }
        for name in ["", "-x", "x.", "a b", "a\u{e9}"] {
            assert!(!is_software_name(name), "{name}");
        }
    }
}

//! ApiVersions (key 18), versions 0 to 4.
//!
//! 1: throttle time | 3: flexible, the client's software, features (KIP-511, KIP-584) | 4: features from level 0.
//!
//! The reply's header never has tagged fields, so that a client newer than us can read it. An unknown version is
//! answered in version 0 with UNSUPPORTED_VERSION and the versions of this API alone.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::{API_ROWS, ApiRow, Outcome, RequestContext, text};
use crate::kafka::features::{FEATURES, FEATURES_EPOCH};
use crate::kafka::frame::{self, RequestHeader};

/// The first version that may tell features whose lowest level is 0 (KAFKA-17011).
const LEVEL_0_VERSION: i16 = 4;
/// The first version in which clients name their software.
const SOFTWARE_VERSION: i16 = 3;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let names = [&request.client_software_name, &request.client_software_version];
    if ctx.version() >= SOFTWARE_VERSION && !names.into_iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    let supported = FEATURES.iter().map(|feature| {
        SupportedFeatureKey::default()
            .with_name(text(feature.name))
            .with_min_version(0)
            .with_max_version(feature.level)
    });
    let finalized = FEATURES.iter().map(|feature| {
        FinalizedFeatureKey::default()
            .with_name(text(feature.name))
            .with_min_version_level(feature.level)
            .with_max_version_level(feature.level)
    });
    // Versions before 3 do not have them.
    let has_features = ctx.version() >= SOFTWARE_VERSION;
    // Features from level 0 on are told from version 4 on (KIP-584): before, clients take a level of 0 for an error.
    let tells_level_0 = ctx.version() >= LEVEL_0_VERSION;
    let response = ApiVersionsResponse::default().with_api_keys(API_ROWS.iter().map(advertised).collect());
    if !has_features {
        return response;
    }
    response
        .with_supported_features(if tells_level_0 { supported.collect() } else { Vec::new() })
        .with_finalized_features_epoch(FEATURES_EPOCH)
        .with_finalized_features(finalized.collect())
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

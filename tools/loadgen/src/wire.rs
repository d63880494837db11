//! Frames: a size, a header, a message. Versions: the highest that the broker's ApiVersions and this crate share.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes, VersionRange};

/// The client id of every request.
pub const CLIENT_ID: &str = "loadgen";
/// Bytes of the size in front of each frame.
pub const SIZE_BYTES: usize = 4;
/// Where a request frame's correlation id stands: after size, key and version.
pub const CORRELATION_ID_POSITION: usize = 8;
/// A larger reply is taken for damage.
pub const FRAME_BYTES_MAX: usize = 1 << 30;

/// What a broker serves.
#[derive(Clone, Debug, Default)]
pub struct ApiTable(HashMap<i16, VersionRange>);

impl ApiTable {
    pub fn new(response: &ApiVersionsResponse) -> Self {
        let ranges = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, VersionRange { min: api.min_version, max: api.max_version }));
        Self(ranges.collect())
    }

    /// The highest version of `R` that both sides know.
    ///
    /// # Errors
    /// If there is none.
    pub fn version<R: Request>(&self) -> Result<i16> {
        let name = std::any::type_name::<R>().rsplit("::").next().unwrap_or_default();
        let theirs = self.0.get(&R::KEY).with_context(|| format!("the broker does not serve {name}"))?;
        let shared = theirs.intersect(&R::VERSIONS);
        ensure!(!shared.is_empty(), "the broker serves {name} {theirs}, loadgen knows {}", R::VERSIONS);
        Ok(shared.max)
    }
}

/// A request with its size in front.
///
/// # Errors
/// If a field is set that `version` does not have.
pub fn encode_request<R: Request>(request: &R, version: i16, correlation_id: i32) -> Result<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    let mut frame = BytesMut::zeroed(SIZE_BYTES);
    header.encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    let size = u32::try_from(frame.len() - SIZE_BYTES)?;
    frame[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
    Ok(Vec::from(frame))
}

/// The correlation id and message of a reply without its size.
///
/// # Errors
/// If the bytes are not a reply of that version.
pub fn decode_response<R: Request>(mut frame: Bytes, version: i16) -> Result<(i32, R::Response)> {
    let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version))?;
    let response = R::Response::decode(&mut frame, version)?;
    Ok((header.correlation_id, response))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::{ApiVersionsResponse, FetchRequest, MetadataRequest, ProduceRequest};

    use super::ApiTable;

    #[test]
    fn the_highest_shared_version_is_taken() {
        let api = |key, min, max| {
            ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
        };
        let response = ApiVersionsResponse::default().with_api_keys(vec![
            api(0, 0, 9),
            api(1, 100, 101),
            api(3, 0, 100),
        ]);
        let table = ApiTable::new(&response);
        assert_eq!(table.version::<ProduceRequest>().expect("shared"), 9);
        assert_eq!(table.version::<MetadataRequest>().expect("shared"), 13);
        assert!(table.version::<FetchRequest>().unwrap_err().to_string().contains("FetchRequest"));
    }
}

//! DescribeAcls (key 29), versions 1 to 3. Without security Kafka has no ACLs to show and says so.
//!
//! 1: pattern types (KIP-290) | 2: flexible | 3: user resources.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::{NO_AUTHORIZER, RequestContext, text};

pub(super) async fn handle(_ctx: &RequestContext<'_>, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)))
}

//! CreateAcls (key 30), versions 1 to 3. Without security none can be made.
//!
//! 1: pattern types (KIP-290) | 2: flexible | 3: user resources.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::{NO_AUTHORIZER, RequestContext, text};

pub(super) async fn handle(_ctx: &RequestContext<'_>, request: CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)));
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}

//! DeleteAcls (key 31), versions 1 to 3. Without security there are none.
//!
//! 1: pattern types (KIP-290) | 2: flexible | 3: user resources.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use super::{NO_AUTHORIZER, RequestContext, text};

pub(super) async fn handle(_ctx: &RequestContext<'_>, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(text(NO_AUTHORIZER)));
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}

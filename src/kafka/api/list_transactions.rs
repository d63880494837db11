//! ListTransactions (key 66), versions 0 to 2 (KIP-664).
//!
//! 1: only those open for longer (KIP-994) | 2: only ids that fit a pattern (KIP-1152).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_transactions_response::TransactionState as WireTransaction;
use kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::transaction::{IdPattern, ListTransactions, TransactionState};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
    let pattern = match pattern.map(|pattern| IdPattern::new(pattern).ok_or(())).transpose() {
        Ok(pattern) => pattern,
        Err(()) => return response.with_error_code(ResponseError::InvalidRegularExpression.code()),
    };
    let (mut states, mut unknown_states) = (Vec::new(), Vec::new());
    for name in &request.state_filters {
        match TransactionState::of_name(name) {
            Some(state) => states.push(state),
            None => unknown_states.push(name.clone()),
        }
    }
    let response = response.with_unknown_state_filters(unknown_states);
    if states.is_empty() && !request.state_filters.is_empty() {
        return response; // nothing is in a state that there is not
    }
    let wanted = ListTransactions {
        states,
        producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
        longer_than_ms: if ctx.version() >= 1 { request.duration_filter } else { -1 },
        pattern,
    };
    match ctx.broker().list_transactions(wanted).await {
        Ok(listed) => {
            let listed = listed.into_iter().map(|transaction| {
                WireTransaction::default()
                    .with_transactional_id(TransactionalId(text(transaction.transactional_id)))
                    .with_producer_id(ProducerId(transaction.producer_id))
                    .with_transaction_state(text(transaction.state.name()))
            });
            response.with_transaction_states(listed.collect())
        }
        Err(error) => response.with_error_code(error_code::of_transaction(error).code()),
    }
}

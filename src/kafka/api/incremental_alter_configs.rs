//! IncrementalAlterConfigs (key 44), versions 0 and 1 (KIP-339).
//!
//! 1: flexible.
//!
//! A resource that stands twice in a request is refused in each place, and so is a resource with a key that stands
//! twice, as in Kafka.

use ahash::{AHashMap, AHashSet};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, config_resource, text};
use crate::broker::{AlterOp, ConfigAlteration};
use crate::kafka::error_code;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let alterations = request
        .resources
        .into_iter()
        .map(|resource| Alteration {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            changes: resource
                .configs
                .into_iter()
                .map(|config| {
                    let value = config.value.map(|value| value.to_string());
                    (config.name.to_string(), alter_op(config.config_operation), value)
                })
                .collect(),
            replace_all: false,
        })
        .collect();
    let responses = alter(ctx, alterations, request.validate_only).await.into_iter().map(|altered| {
        AlterConfigsResourceResponse::default()
            .with_error_code(altered.error_code)
            .with_error_message(altered.error_message)
            .with_resource_type(altered.resource_type)
            .with_resource_name(altered.resource_name)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn alter_op(number: i8) -> Option<AlterOp> {
    match number {
        0 => Some(AlterOp::Set),
        1 => Some(AlterOp::Delete),
        2 => Some(AlterOp::Append),
        3 => Some(AlterOp::Subtract),
        _ => None,
    }
}

/// Changes to one resource, as either request has them.
pub(super) struct Alteration {
    pub(super) resource_type: i8,
    pub(super) resource_name: StrBytes,
    /// Key, what to do unless it is something unknown, value.
    pub(super) changes: Vec<(String, Option<AlterOp>, Option<String>)>,
    pub(super) replace_all: bool,
}

/// What became of them.
pub(super) struct Altered {
    pub(super) error_code: i16,
    pub(super) error_message: Option<StrBytes>,
    pub(super) resource_type: i8,
    pub(super) resource_name: StrBytes,
}

/// Alters; one answer for each resource, in order.
pub(super) async fn alter(
    ctx: &RequestContext<'_>,
    alterations: Vec<Alteration>,
    validate_only: bool,
) -> Vec<Altered> {
    let mut named: AHashMap<(i8, StrBytes), usize> = AHashMap::new();
    for alteration in &alterations {
        *named.entry((alteration.resource_type, alteration.resource_name.clone())).or_default() += 1;
    }
    let mut answers = Vec::with_capacity(alterations.len());
    let mut places = Vec::new();
    let mut checked = Vec::new();
    for alteration in alterations {
        let key = (alteration.resource_type, alteration.resource_name.clone());
        let is_named_twice = named.get(&key).is_some_and(|count| *count > 1);
        let mut answer = Altered {
            error_code: error_code::NONE,
            error_message: None,
            resource_type: key.0,
            resource_name: key.1,
        };
        match check(alteration, is_named_twice) {
            Ok(alteration) => {
                places.push(answers.len());
                checked.push(alteration);
            }
            Err(message) => {
                answer.error_code = ResponseError::InvalidRequest.code();
                answer.error_message = Some(text(message));
            }
        }
        answers.push(answer);
    }
    for (place, altered) in places.into_iter().zip(ctx.broker().alter_configs(checked, validate_only).await) {
        answers[place].error_code = error_code::code(&altered);
        answers[place].error_message = error_code::message(&altered);
    }
    answers
}

fn check(alteration: Alteration, is_named_twice: bool) -> Result<ConfigAlteration, &'static str> {
    if is_named_twice {
        return Err("Each resource must appear at most once.");
    }
    let resource = config_resource(alteration.resource_type, &alteration.resource_name)
        .ok_or("This server has no configs for resources of this type.")?;
    let mut keys = AHashSet::new();
    let mut changes = Vec::with_capacity(alteration.changes.len());
    for (key, op, value) in alteration.changes {
        if !keys.insert(key.clone()) {
            return Err("Error due to duplicate config keys.");
        }
        let op = op.ok_or("Unknown config operation.")?;
        if value.is_none() && op != AlterOp::Delete {
            return Err("Null value not supported.");
        }
        changes.push((key, op, value));
    }
    Ok(ConfigAlteration { resource, changes, replace_all: alteration.replace_all })
}

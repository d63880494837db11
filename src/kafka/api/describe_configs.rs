//! DescribeConfigs (key 32), versions 1 to 4.
//!
//! 1: synonyms, sources (KIP-226) | 3: type and documentation (KIP-569) | 4: flexible.
//!
//! Topics and the broker have configs. Broker loggers, client metrics and groups do not: asking for them is refused.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, config_resource, config_source, text};
use crate::config::{ConfigType, DescribedConfig};
use crate::kafka::error_code;

/// The first version that tells types and documentation.
const TYPE_VERSION: i16 = 3;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let detail = Detail {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation && ctx.version() >= TYPE_VERSION,
    };
    let results = request.resources.into_iter().map(|resource| describe(ctx, resource, &detail));
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// What the client wants beside names and values.
struct Detail {
    synonyms: bool,
    documentation: bool,
}

fn describe(
    ctx: &RequestContext<'_>,
    resource: DescribeConfigsResource,
    detail: &Detail,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    let Some(asked) = config_resource(resource.resource_type, &resource.resource_name) else {
        return result
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(Some(text("This server has no configs for resources of this type.")));
    };
    let described = ctx.broker().describe_configs(&[asked]).pop();
    match described {
        Some(Ok(configs)) => {
            let keys = resource.configuration_keys.filter(|keys| !keys.is_empty());
            let is_wanted = |config: &DescribedConfig| {
                keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == config.name))
            };
            let configs = configs.into_iter().filter(is_wanted).map(|config| config_result(config, detail));
            result.with_configs(configs.collect())
        }
        Some(described) => result
            .with_error_code(error_code::code(&described))
            .with_error_message(error_code::message(&described)),
        None => result.with_error_code(ResponseError::UnknownServerError.code()),
    }
}

fn config_result(config: DescribedConfig, detail: &Detail) -> DescribeConfigsResourceResult {
    let synonyms = config.synonyms.into_iter().filter(|_| detail.synonyms);
    let synonyms = synonyms.map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(synonym.name))
            .with_value(synonym.value.map(text))
            .with_source(config_source(synonym.source))
    });
    let documentation = detail.documentation.then(|| StrBytes::from_static_str(config.documentation));
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(config.name))
        .with_value(config.value.map(text))
        .with_read_only(config.read_only)
        .with_config_source(config_source(config.source))
        .with_is_sensitive(config.sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(config_type(config.kind))
        .with_documentation(documentation)
}

/// Kafka's number of a config's type.
fn config_type(kind: ConfigType) -> i8 {
    match kind {
        ConfigType::Boolean => 1,
        ConfigType::String => 2,
        ConfigType::Int => 3,
        ConfigType::Short => 4,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
        ConfigType::Class => 8,
        ConfigType::Password => 9,
    }
}

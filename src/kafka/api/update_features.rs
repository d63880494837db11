//! UpdateFeatures (key 57), versions 0 to 2 (KIP-584). Levels are what the binary can do: asking for the present one is
//! granted, anything else refused.
//!
//! 1: downgrade types, check only | 2: all or nothing, with one error.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::{RequestContext, text};
use crate::kafka::features::FEATURES;

/// The first version without an answer for each feature.
const ONE_ANSWER_VERSION: i16 = 2;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let checked: Vec<(FeatureUpdateKey, Option<String>)> = request
        .feature_updates
        .into_iter()
        .map(|update| {
            let wrong = find_wrong(&update);
            (update, wrong)
        })
        .collect();
    let first_wrong = checked.iter().find_map(|(_, wrong)| wrong.clone());
    let code = ResponseError::InvalidUpdateVersion.code();
    if ctx.version() >= ONE_ANSWER_VERSION {
        return match first_wrong {
            None => UpdateFeaturesResponse::default(),
            Some(wrong) => {
                let wrong = format!(
                    "The update failed for all features since the following feature had an error: {wrong}"
                );
                UpdateFeaturesResponse::default().with_error_code(code).with_error_message(Some(text(wrong)))
            }
        };
    }
    let results = checked.into_iter().map(|(update, wrong)| {
        UpdatableFeatureResult::default()
            .with_feature(update.feature)
            .with_error_code(if wrong.is_some() { code } else { 0 })
            .with_error_message(wrong.map(text))
    });
    UpdateFeaturesResponse::default().with_results(results.collect())
}

fn find_wrong(update: &FeatureUpdateKey) -> Option<String> {
    let (name, level) = (update.feature.as_str(), update.max_version_level);
    let say = |why: String| Some(format!("Invalid update version {level} for feature {name}. {why}"));
    match FEATURES.iter().find(|feature| feature.name == name) {
        _ if level < 0 => say("A feature version cannot be less than 0.".to_owned()),
        None => say("This server does not support this feature.".to_owned()),
        Some(feature) if level == feature.level => None,
        Some(feature) => say(format!("This server has level {} and no other.", feature.level)),
    }
}

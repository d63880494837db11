//! redis-py, ioredis and go-redis at the Redis door, in both protocols. Each takes the same steps through its own calls
//! against Redis and against LogStreams, and must see the same: Redis says what is right.

mod support;

use support::redis::{IdNames, Library, Redis, Subject};

macro_rules! for_every_library {
    ($($scenario:ident)*) => {
        for_every_library!(@library redis_py RedisPy [$($scenario)*]);
        for_every_library!(@library ioredis Ioredis [$($scenario)*]);
        for_every_library!(@library go_redis GoRedis [$($scenario)*]);
    };
    (@library $module:ident $library:ident $scenarios:tt) => {
        mod $module {
            for_every_library!(@protocol resp2 2 $library $scenarios);
            for_every_library!(@protocol resp3 3 $library $scenarios);
        }
    };
    (@protocol $module:ident $protocol:literal $library:ident [$($scenario:ident)*]) => {
        mod $module {
            $(#[test]
            fn $scenario() {
                crate::$scenario(crate::support::redis::Library::$library, $protocol);
            })*
        }
    };
}

for_every_library! {
    streams_are_written_read_and_trimmed_as_in_redis
    groups_read_acknowledge_and_claim_as_in_redis
    topics_are_keys_as_in_redis
    messages_are_published_to_channels_and_patterns_as_in_redis
    thousands_of_commands_in_a_pipeline_are_answered_in_order
}

/// Steps where LogStreams answers otherwise by design, and why.
const DIFFERENT: [(&str, &str, &str); 0] = [];

fn streams_are_written_read_and_trimmed_as_in_redis(library: Library, protocol: u8) {
    sees_the_same(library, protocol, "streams");
}

fn groups_read_acknowledge_and_claim_as_in_redis(library: Library, protocol: u8) {
    sees_the_same(library, protocol, "groups");
}

fn topics_are_keys_as_in_redis(library: Library, protocol: u8) {
    sees_the_same(library, protocol, "keys");
}

fn messages_are_published_to_channels_and_patterns_as_in_redis(library: Library, protocol: u8) {
    sees_the_same(library, protocol, "pubsub");
}

fn thousands_of_commands_in_a_pipeline_are_answered_in_order(library: Library, protocol: u8) {
    sees_the_same(library, protocol, "pipeline");
}

fn sees_the_same(library: Library, protocol: u8, scenario: &str) {
    let redis = Redis::start();
    let subject = Subject::start(if protocol == 2 { 8 } else { 2 });
    let transcript = |address: &str| -> Vec<(String, String)> {
        let mut ids = IdNames::default();
        let steps = library.scenario(address, protocol, scenario, "kit.");
        steps.into_iter().map(|(name, seen)| (name, ids.rename(&seen))).collect()
    };
    let right = transcript(redis.address());
    let seen = transcript(subject.address());
    let mut wrong = Vec::new();
    for ((step, right), (_, seen)) in right.iter().zip(&seen) {
        let by_design = DIFFERENT.iter().any(|known| known.0 == scenario && known.1 == step);
        if right != seen && !by_design {
            wrong.push(format!("{step}\n  Redis:  {}\n  we say: {}", shortened(right), shortened(seen)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} steps differ\n{}", wrong.len(), right.len(), wrong.join("\n"));
    assert_eq!(right.len(), seen.len(), "steps taken");
}

fn shortened(text: &str) -> String {
    text.chars().take(600).collect()
}

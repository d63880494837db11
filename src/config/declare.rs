//! The macro that turns the table of entries into typed structs and their descriptions.
//!
//! From one row follow: a field of [`Config`](super::Config), a field of [`TopicConfig`](super::TopicConfig) when
//! topics may override it, the [`Entry`](super::entry::Entry) that describes it, and the arms that set and show it.

/// Declares every entry; `table.rs` is its only caller and shows the grammar.
macro_rules! declare_entries {
    (
        $(
            section $section:literal {
                $(
                    $(#[doc = $doc:literal])+
                    $field:ident: $ty:ty as $kind:ident, $name:literal
                    $(, topic $topic_field:ident $topic_name:literal)?
                    , default $default:literal
                    $(, bounds $min:expr => $max:expr)?
                    $(, unit $unit:ident)?
                    $(, alias $alias:literal $alias_unit:ident)*
                    $(, is $flag:ident)*
                    ;
                )+
            }
        )+
        topics only {
            $(
                $(#[doc = $only_doc:literal])+
                $only_field:ident: $only_ty:ty as $only_kind:ident, $only_name:literal, default $only_default:literal
                $(, is $only_flag:ident)*
                ;
            )+
        }
    ) => {
        /// The whole configuration of one server: typed, checked, and with the origin of every value.
        ///
        /// Immutable once built; share it in an `Arc`. A change while running is a new value, see
        /// [`Config::with_dynamic`].
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(
                $(#[doc = $doc])+
                pub $field: $ty,
            )+)+
            pub(super) origins: Origins,
        }

        /// The configuration of one topic: its overrides resolved against the broker's values.
        #[derive(Debug, Clone, PartialEq)]
        pub struct TopicConfig {
            $($($(
                #[doc = concat!("`", $topic_name, "`; what it means stands at [`Config::", stringify!($field), "`].")]
                pub $topic_field: $ty,
            )?)+)+
            $(
                #[doc = concat!("`", $only_name, "`:")]
                $(#[doc = $only_doc])+
                pub $only_field: $only_ty,
            )+
        }

        /// Every entry that has a broker-level name, in the order of the page.
        pub static BROKER_ENTRIES: &[Entry] = &[
            $($(
                Entry {
                    name: $name,
                    topic_name: declare_entries!(@optional $($topic_name)?),
                    section: $section,
                    doc: concat!($($doc),+),
                    rule: Rule {
                        kind: ConfigType::$kind,
                        unit: declare_entries!(@unit $($unit)?),
                        bounds: declare_entries!(@optional $(($min, $max))?),
                    },
                    default: $default,
                    choices: <$ty as Setting>::CHOICES,
                    alter: declare_entries!(@flags Alter::Restart, running Alter::Running; $($flag)*),
                    inert: declare_entries!(@flags false, inert true; $($flag)*),
                    aliases: &[$(Alias { name: $alias, unit: Unit::$alias_unit }),*],
                    presence_matters: <$ty as Setting>::PRESENCE_MATTERS,
                    normalize: normalize::<$ty>,
                },
            )+)+
        ];

        /// The entries that only topics have.
        pub static TOPIC_ONLY_ENTRIES: &[Entry] = &[
            $(
                Entry {
                    name: $only_name,
                    topic_name: Some($only_name),
                    section: "Topics only",
                    doc: concat!($($only_doc),+),
                    rule: Rule { kind: ConfigType::$only_kind, unit: Unit::Plain, bounds: None },
                    default: $only_default,
                    choices: <$only_ty as Setting>::CHOICES,
                    alter: Alter::Running,
                    inert: declare_entries!(@flags false, inert true; $($only_flag)*),
                    aliases: &[],
                    presence_matters: <$only_ty as Setting>::PRESENCE_MATTERS,
                    normalize: normalize::<$only_ty>,
                },
            )+
        ];

        impl Config {
            /// Builds a config by asking `text` for each entry's value as text.
            pub(super) fn build<E>(
                origins: Origins,
                mut text: impl FnMut(&'static Entry) -> String,
                mut refuse: impl FnMut(&'static Entry, &str, Problem) -> E,
            ) -> Result<Self, E> {
                let mut entries = BROKER_ENTRIES.iter();
                // The entries stand in the order of the fields, so that each field takes the next one.
                $($(
                    let $field = {
                        let entry = next_entry(&mut entries, $name);
                        let text = text(entry);
                        match <$ty as Setting>::read(&entry.rule, text.trim()) {
                            Ok(value) => value,
                            Err(problem) => return Err(refuse(entry, &text, problem)),
                        }
                    };
                )+)+
                Ok(Config { $($($field,)+)+ origins })
            }
        }

        impl TopicConfig {
            /// A topic without overrides.
            pub(super) fn of_broker(config: &Config) -> Self {
                let mut only_entries = TOPIC_ONLY_ENTRIES.iter();
                TopicConfig {
                    $($($( $topic_field: config.$field.clone(), )?)+)+
                    $(
                        $only_field: default_of(next_entry(&mut only_entries, $only_name)),
                    )+
                }
            }

            /// Sets the field that `entry` describes.
            pub(super) fn set(&mut self, entry: &Entry, text: &str) -> Result<(), Problem> {
                match entry.topic_name {
                    $($($( Some($topic_name) => self.$topic_field = Setting::read(&entry.rule, text)?, )?)+)+
                    $( Some($only_name) => self.$only_field = Setting::read(&entry.rule, text)?, )+
                    _ => {}
                }
                Ok(())
            }
        }
    };

    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
    (@unit) => { Unit::Plain };
    (@unit $unit:ident) => { Unit::$unit };
    (@flags $without:expr, running $with:expr; running $($rest:ident)*) => { $with };
    (@flags $without:expr, inert $with:expr; inert $($rest:ident)*) => { $with };
    (@flags $without:expr, $wanted:ident $with:expr; ) => { $without };
    (@flags $without:expr, $wanted:ident $with:expr; $other:ident $($rest:ident)*) => {
        declare_entries!(@flags $without, $wanted $with; $($rest)*)
    };
}

pub(super) use declare_entries;

//! Numbers: counts, sizes, times, and limits that may be absent.

use super::{Problem, Setting};
use crate::config::entry::{ConfigType, Rule, Unit};

/// A bound that `-1` takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No bound; written `-1`.
    Unlimited,
    /// At most this much.
    Of(i64),
}

impl Limit {
    /// The bound, if there is one.
    pub fn get(self) -> Option<i64> {
        match self {
            Limit::Unlimited => None,
            Limit::Of(bound) => Some(bound),
        }
    }
}

/// How many shards to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCount {
    /// One per CPU that the process may use, but one on two CPUs; written `auto` or `0`.
    Auto,
    /// Exactly this many.
    Exactly(usize),
}

impl ShardCount {
    /// The number of shards: at least one. `Auto` follows the CPUs that affinity and the cgroup's quota leave this
    /// process, a fraction rounded down. On two CPUs the kernel's network work and the clients keep the second one busy,
    /// and one shard serves as much for less (PERF.md, "one shard or two").
    pub fn resolve(self) -> usize {
        match self {
            ShardCount::Auto => match std::thread::available_parallelism().map_or(1, usize::from) {
                2 => 1,
                cpus => cpus,
            },
            ShardCount::Exactly(count) => count.max(1),
        }
    }
}

fn not_a_number(rule: &Rule) -> Problem {
    let mut sentence = format!("Not a number of type {}", rule.kind.word().to_uppercase());
    if rule.unit == Unit::Bytes {
        sentence.push_str(" (KiB, MiB or GiB may follow)");
    }
    Problem(sentence)
}

/// Reads a whole number within the rule's bounds.
fn read_integer(rule: &Rule, text: &str) -> Result<i64, Problem> {
    let (digits, factor) = match rule.unit {
        Unit::Bytes => split_size(text),
        _ => (text, 1),
    };
    let value = digits
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| not_a_number(rule))?;
    let (type_min, type_max) = match rule.kind {
        ConfigType::Short => (i64::from(i16::MIN), i64::from(i16::MAX)),
        ConfigType::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    if value < type_min || value > type_max {
        return Err(not_a_number(rule));
    }
    let (min, max) = rule.bounds.unwrap_or((type_min, type_max));
    if value < min {
        return Err(Problem(format!("Value must be at least {min}")));
    }
    if value > max {
        return Err(Problem(format!("Value must be no more than {max}")));
    }
    Ok(value)
}

/// Splits `64MiB` into its digits and 1,048,576.
fn split_size(text: &str) -> (&str, i64) {
    for (suffix, factor) in [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)] {
        if let Some(digits) = text.strip_suffix(suffix) {
            return (digits.trim_end(), factor);
        }
    }
    (text, 1)
}

macro_rules! integer_settings {
    ($($ty:ty),+) => {$(
        impl Setting for $ty {
            fn read(rule: &Rule, text: &str) -> Result<Self, Problem> {
                <$ty>::try_from(read_integer(rule, text)?).map_err(|_| not_a_number(rule))
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

integer_settings!(i16, i32, i64, u16, u32, u64, usize);

impl Setting for f64 {
    fn read(rule: &Rule, text: &str) -> Result<Self, Problem> {
        let value =
            text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| not_a_number(rule))?;
        if let Some((min, max)) = rule.bounds {
            // The bounds of the few fractions are small whole numbers, exact in both types.
            if value < min as f64 {
                return Err(Problem(format!("Value must be at least {min}")));
            }
            if value > max as f64 {
                return Err(Problem(format!("Value must be no more than {max}")));
            }
        }
        Ok(value)
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Setting for bool {
    const CHOICES: &'static [&'static str] = &["true", "false"];

    fn read(_rule: &Rule, text: &str) -> Result<Self, Problem> {
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err(Problem::new("Expected value to be either true or false"))
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for Limit {
    fn read(rule: &Rule, text: &str) -> Result<Self, Problem> {
        Ok(match read_integer(rule, text)? {
            bound if bound < 0 => Limit::Unlimited,
            bound => Limit::Of(bound),
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.get().unwrap_or(-1).to_string())
    }
}

impl Setting for ShardCount {
    fn read(rule: &Rule, text: &str) -> Result<Self, Problem> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(ShardCount::Auto);
        }
        let count = read_integer(rule, text)
            .map_err(|problem| Problem(format!("{problem}; write auto for one shard per usable CPU")))?;
        match usize::try_from(count) {
            Ok(0) | Err(_) => Ok(ShardCount::Auto),
            Ok(count) => Ok(ShardCount::Exactly(count)),
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            ShardCount::Auto => "auto".to_owned(),
            ShardCount::Exactly(count) => count.to_string(),
        })
    }
}

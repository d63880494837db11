//! Keys of records: how many there are, how often each comes up, and which partition a key belongs to.
//!
//! A key is its number in twelve decimal digits, so all keys have the same length and a batch template can hold their
//! places. Key 0 is the most frequent one of a Zipf distribution. The partition is that of Kafka's default partitioner.
//! Source: `Utils.murmur2` of Kafka's clients; Hörmann and Derflinger, "Rejection-inversion to generate variates from
//! monotone discrete distributions" (1996).

use anyhow::{Result, bail, ensure};
use serde::Serialize;

/// Bytes of a key.
pub const KEY_BYTES: usize = 12;
/// Keys have twelve digits.
const KEYS_MAX: u64 = 1_000_000_000_000;
const ZIPF_EXPONENT: f64 = 1.0;
const ZIPF_EXPONENT_MAX: f64 = 10.0;
const MURMUR2_SEED: u32 = 0x9747_b28c;

/// How keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Keys {
    /// No keys: batches go to the partitions in turn.
    None,
    /// So many keys, each as often as any other.
    Uniform { count: u64 },
    /// So many keys; the k-th comes up in proportion to 1 / k^exponent.
    Zipf { count: u64, exponent: f64 },
}

impl Keys {
    /// Reads `none`, `uniform:N`, `zipf:N` or `zipf:N:EXPONENT`.
    ///
    /// # Errors
    /// If it is none of these, or the numbers are out of bounds.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = text.split(':');
        let (name, rest) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>());
        let count = |word: &str| -> Result<u64> {
            let count = word.replace('_', "").parse()?;
            ensure!((1..=KEYS_MAX).contains(&count), "between 1 and {KEYS_MAX} keys, not {count}");
            Ok(count)
        };
        Ok(match (name, rest.as_slice()) {
            ("none", []) => Self::None,
            ("uniform", [keys]) => Self::Uniform { count: count(keys)? },
            ("zipf", [keys]) => Self::Zipf { count: count(keys)?, exponent: ZIPF_EXPONENT },
            ("zipf", [keys, exponent]) => {
                let exponent: f64 = exponent.parse()?;
                let is_sound = exponent > 0.0 && exponent <= ZIPF_EXPONENT_MAX;
                ensure!(is_sound, "an exponent above 0, up to {ZIPF_EXPONENT_MAX}, not {exponent}");
                Self::Zipf { count: count(keys)?, exponent }
            }
            _ => bail!("expected none, uniform:N, zipf:N or zipf:N:EXPONENT"),
        })
    }
}

/// Draws key numbers; two samplers of the same seed draw the same.
pub struct Sampler {
    state: u64,
    distribution: Distribution,
}

enum Distribution {
    Uniform { count: u64 },
    Zipf(Zipf),
}

impl Sampler {
    /// A sampler of `keys`; `None` if there are no keys.
    pub fn new(keys: Keys, seed: u64) -> Option<Self> {
        let distribution = match keys {
            Keys::None => return None,
            Keys::Uniform { count } => Distribution::Uniform { count },
            Keys::Zipf { count, exponent } => Distribution::Zipf(Zipf::new(count, exponent)),
        };
        Some(Self { state: seed, distribution })
    }

    /// The next key's number.
    pub fn draw(&mut self) -> u64 {
        let state = &mut self.state;
        match &self.distribution {
            // The high half of a product with 64 random bits: even but for one part in 2^24 at 10^12 keys.
            Distribution::Uniform { count } => {
                let product = u128::from(random(state)) * u128::from(*count);
                u64::try_from(product >> 64).expect("below count")
            }
            Distribution::Zipf(zipf) => zipf.draw(|| (random(state) >> 11) as f64 / (1u64 << 53) as f64),
        }
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// A Zipf distribution over 0..count, drawn in constant time and memory.
struct Zipf {
    count: f64,
    exponent: f64,
    integral_first: f64,
    integral_last: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Self {
        let count = count as f64;
        let mut zipf = Self { count, exponent, integral_first: 0.0, integral_last: 0.0, shortcut: 0.0 };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(count + 0.5);
        zipf.shortcut = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn draw(&self, mut uniform: impl FnMut() -> f64) -> u64 {
        loop {
            let area = self.integral_last + uniform() * (self.integral_first - self.integral_last);
            let x = self.integral_inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.shortcut || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of the density, (x^(1-exponent) - 1) / (1 - exponent), also where the exponent is 1.
    fn integral(&self, x: f64) -> f64 {
        let log_x = x.ln();
        let power = (1.0 - self.exponent) * log_x;
        if power.abs() > 1e-8 { power.exp_m1() / power * log_x } else { log_x * (1.0 + power / 2.0) }
    }

    fn integral_inverse(&self, area: f64) -> f64 {
        let power = (area * (1.0 - self.exponent)).max(-1.0);
        let log_x =
            if power.abs() > 1e-8 { power.ln_1p() / power * area } else { area * (1.0 - power / 2.0) };
        log_x.exp()
    }
}

/// Writes a key's digits.
pub fn write_key(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

/// The partition of a key number among `partition_count`.
pub fn partition_of(number: u64, partition_count: usize) -> usize {
    let mut key = [0; KEY_BYTES];
    write_key(number, &mut key);
    (murmur2(&key) & 0x7fff_ffff) as usize % partition_count
}

/// Kafka's 32-bit MurmurHash2.
fn murmur2(bytes: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let length = u32::try_from(bytes.len()).expect("keys are short");
    let mut hash = MURMUR2_SEED ^ length;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        for (index, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::{KEY_BYTES, Keys, Sampler, murmur2, partition_of, write_key};

    /// The values of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
        assert!((0..1_000).all(|number| partition_of(number, 7) < 7));
    }

    #[test]
    fn keys_read_as_people_write_them() {
        assert_eq!(Keys::parse("none").expect("sound"), Keys::None);
        assert_eq!(Keys::parse("uniform:1_000").expect("sound"), Keys::Uniform { count: 1_000 });
        assert_eq!(Keys::parse("zipf:10").expect("sound"), Keys::Zipf { count: 10, exponent: 1.0 });
        assert_eq!(Keys::parse("zipf:10:0.9").expect("sound"), Keys::Zipf { count: 10, exponent: 0.9 });
        for text in ["", "uniform", "uniform:0", "zipf:10:-1", "zipf:1:2:3", "pareto:4"] {
            assert!(Keys::parse(text).is_err(), "{text}");
        }
        let mut key = [0; KEY_BYTES];
        write_key(1_234, &mut key);
        assert_eq!(&key, b"000000001234");
    }

    #[test]
    fn uniform_keys_all_come_up_equally_often() {
        let mut sampler = Sampler::new(Keys::Uniform { count: 10 }, 1).expect("keys");
        let mut counts = [0u32; 10];
        (0..100_000).for_each(|_| counts[sampler.draw() as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert!(Sampler::new(Keys::None, 1).is_none());
    }

    #[test]
    fn zipf_keys_come_up_by_their_rank() {
        for exponent in [0.5, 1.0, 1.5] {
            let mut sampler = Sampler::new(Keys::Zipf { count: 100, exponent }, 7).expect("keys");
            let mut counts = [0u32; 100];
            (0..400_000).for_each(|_| counts[sampler.draw() as usize] += 1);
            let weights: Vec<f64> = (1..=100).map(|rank| f64::from(rank).powf(-exponent)).collect();
            let sum: f64 = weights.iter().sum();
            for rank in [0, 1, 2, 9, 50] {
                let expected = 400_000.0 * weights[rank] / sum;
                let off = (f64::from(counts[rank]) - expected).abs() / expected;
                assert!(off < 0.1, "exponent {exponent} rank {rank}: {} against {expected}", counts[rank]);
            }
        }
    }
}

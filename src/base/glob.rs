//! Patterns as Redis matches them: `*`, `?`, `[a-c]`, `[^x]`, and `\` before what is meant literally.

/// Whether all of `text` matches `pattern`. Takes time in proportion to the product of the two lengths at most.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where to go on when what follows the last star does not fit: behind the star, one byte later in the text.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if let Some(b'*') = pattern.get(at) {
            at += 1;
            retry = Some((at, position));
            continue;
        }
        let fits = match (at < pattern.len(), text.get(position)) {
            (false, None) => return true,
            (true, Some(byte)) => one(&pattern[at..], *byte),
            _ => None,
        };
        match (fits, &mut retry) {
            (Some(length), _) => {
                at += length;
                position += 1;
            }
            (None, Some((star, start))) if *start < text.len() => {
                *start += 1;
                (at, position) = (*star, *start);
            }
            (None, _) => return false,
        }
    }
}

/// The length of the element at the front of `pattern`, if it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', class @ ..] => {
            let (length, fits) = class_fits(class, byte);
            fits.then_some(1 + length)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// The length of a class behind its `[`, and whether it has `byte`. A class that is not closed ends with the pattern.
fn class_fits(class: &[u8], byte: u8) -> (usize, bool) {
    let is_negated = class.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut has = false;
    loop {
        match class.get(at..).unwrap_or_default() {
            [] => return (class.len(), has != is_negated),
            [b']', ..] => return (at + 1, has != is_negated),
            [b'\\', literal, ..] => {
                has |= *literal == byte;
                at += 2;
            }
            [low, b'-', high, ..] if *high != b']' => {
                has |= (*low.min(high)..=*low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                has |= *literal == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        let fits = |pattern: &str, text: &str| matches(pattern.as_bytes(), text.as_bytes());
        for (pattern, text) in [
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abbc"),
            ("a*b*c", "axxbxxc"),
            ("?", "x"),
            ("h[ae]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[^e]llo", "hallo"),
            ("\\*", "*"),
            ("orders.*", "orders.eu"),
            ("[\\]]", "]"),
            ("**a", "bba"),
            ("[a", "a"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("a*c", "ab"),
            ("h[^a]llo", "hallo"),
            ("\\*", "a"),
            ("abc", "abcd"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        assert!(!fits(&"a*".repeat(50), &"a".repeat(49)));
    }
}

//! Name patterns: `*` stands for any run of characters, `?` for one, everything else for itself.
//!
//! Invariant *bounded*: matching takes at most (length of the name) x (length of the pattern) steps, without recursion.

use crate::{Error, Result, limits::NAME_BYTES_MAX};
use std::fmt;

/// A pattern of names such as `nightly-*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// A pattern from its text.
    ///
    /// # Errors
    /// `InvalidArgument` when it is empty, longer than a name may be, or holds a control character.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            let bytes = text.len();
            return Err(Error::InvalidArgument(format!(
                "a name pattern has 1 to {NAME_BYTES_MAX} bytes, this one has {bytes}; write it like nightly-*"
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::InvalidArgument("a name pattern must not hold control characters".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` as a whole fits the pattern.
    pub fn matches(&self, name: &str) -> bool {
        // Where to go on when the characters after the last star do not fit: one character of the name further.
        let mut retry: Option<(&str, &str)> = None;
        let (mut pattern, mut rest) = (self.0.as_str(), name);
        loop {
            let mut next_pattern = pattern.chars();
            let mut next_rest = rest.chars();
            match (next_pattern.next(), next_rest.next()) {
                (Some('*'), _) => {
                    pattern = next_pattern.as_str();
                    retry = Some((pattern, rest));
                    continue;
                }
                (Some('?'), Some(_)) => {
                    (pattern, rest) = (next_pattern.as_str(), next_rest.as_str());
                    continue;
                }
                (Some(wanted), Some(found)) if wanted == found => {
                    (pattern, rest) = (next_pattern.as_str(), next_rest.as_str());
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((after_star, from)) = retry else { return false };
            let mut further = from.chars();
            if further.next().is_none() {
                return false;
            }
            (pattern, rest) = (after_star, further.as_str());
            retry = Some((pattern, rest));
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, by recursion over all ways to match.
    fn slow(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=name.len()).any(|skip| slow(rest, &name[skip..])),
            (['?', rest @ ..], [_, name @ ..]) => slow(rest, name),
            ([wanted, rest @ ..], [found, name @ ..]) => wanted == found && slow(rest, name),
            _ => false,
        }
    }

    /// Goal: the bounds and the meaning of a pattern. Method: both sides of the longest pattern, and a table.
    #[test]
    fn patterns_match_whole_names() {
        assert!(NamePattern::new(&"x".repeat(NAME_BYTES_MAX)).is_ok());
        for text in [String::new(), "x".repeat(NAME_BYTES_MAX + 1), "a\nb".to_owned()] {
            assert!(NamePattern::new(&text).is_err());
        }
        for (pattern, name, fits) in [
            ("nightly-*", "nightly-7", true),
            ("nightly-*", "nightly-", true),
            ("nightly-*", "a-nightly-7", false),
            ("*", "", true),
            ("?", "\u{e4}", true),
            ("a*b?c", "a-b-b-c", true),
            ("a", "A", false),
        ] {
            assert_eq!(NamePattern::new(pattern).unwrap().matches(name), fits, "{pattern} {name}");
        }
    }

    proptest! {
        /// Goal: matching agrees with its definition. Method: random patterns and names over a tiny alphabet.
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let (slow_pattern, slow_name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(NamePattern::new(&pattern).unwrap().matches(&name), slow(&slow_pattern, &slow_name));
        }
    }
}

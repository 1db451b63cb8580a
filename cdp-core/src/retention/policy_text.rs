//! Policies as TOML and JSON.
//!
//! Both forms have the same fields: `on_shortage`, `max_age`, `max_bytes`, and `window`, a list of `to`, `keep` and
//! `bookmarks`. `keep` is `"all"`, `"none"` or `{ every, per_slot = 1, prefer = [] }`; `bookmarks` is `"none"` (also when
//! absent), `"all"` or `{ kinds, types, names }`. Unknown fields are refused.
//!
//! Invariant *canonical*: equal policies are written as equal texts, and a text that was written reads back as the policy.
//! Fails with `InvalidArgument`; no text longer than [`POLICY_BYTES_MAX`] is looked at.

use super::{
    BookmarkFilter, BookmarkSelection, Keep, NamePattern, OnShortage, Policy, Slots, Window, policy::refuse,
};
use crate::{
    BookmarkKind, Result,
    limits::POLICY_BYTES_MAX,
    text::{format_duration, format_size, parse_duration, parse_size},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    #[serde(default)]
    on_shortage: ShortageText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_age: Option<DurationText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<SizeText>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    window: Vec<WindowText>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum ShortageText {
    #[default]
    Prune,
    Stop,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WindowText {
    to: DurationText,
    keep: WordOr<KeepWord, SlotsText>,
    #[serde(default)]
    bookmarks: WordOr<BookmarksWord, SelectionText>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum KeepWord {
    All,
    None,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SlotsText {
    every: DurationText,
    #[serde(default = "one")]
    per_slot: u32,
    #[serde(default)]
    prefer: Vec<KindText>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum BookmarksWord {
    All,
    #[default]
    None,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SelectionText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<KindText>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    types: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<String>,
}

const fn one() -> u32 {
    1
}

/// Either a word or a table; the error of the one that was meant is the one that is shown.
enum WordOr<Word, Table> {
    Word(Word),
    Table(Table),
}

impl<Word: Default, Table> Default for WordOr<Word, Table> {
    fn default() -> Self {
        Self::Word(Word::default())
    }
}

impl<Word: Serialize, Table: Serialize> Serialize for WordOr<Word, Table> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Word(word) => word.serialize(serializer),
            Self::Table(table) => table.serialize(serializer),
        }
    }
}

impl<'de, Word: Deserialize<'de>, Table: Deserialize<'de>> Deserialize<'de> for WordOr<Word, Table> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<Word, Table>(PhantomData<(Word, Table)>);
        impl<'de, Word: Deserialize<'de>, Table: Deserialize<'de>> Visitor<'de> for Either<Word, Table> {
            type Value = WordOr<Word, Table>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word such as \"all\", or a table")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Word::deserialize(text.into_deserializer()).map(WordOr::Word)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Table)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A value that is written as text but not stored as such.
macro_rules! text_form {
    ($name:ident($inner:ty), $read:expr, $write:expr) => {
        struct $name($inner);
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&$write(self.0))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $read(&text).map(Self).map_err(de::Error::custom)
            }
        }
    };
}

text_form!(DurationText(u64), parse_duration, format_duration);
text_form!(KindText(BookmarkKind), str::parse::<BookmarkKind>, |kind: BookmarkKind| kind.as_str());

/// A size as text, or as a plain number of bytes.
struct SizeText(u64);

impl Serialize for SizeText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_size(self.0))
    }
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = SizeText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"200G\", or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SizeText, E> {
                parse_size(text).map(SizeText).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<SizeText, E> {
                Ok(SizeText(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<SizeText, E> {
                u64::try_from(bytes).map(SizeText).map_err(|_| E::custom("a size must not be negative"))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl Policy {
    /// Reads a policy from TOML.
    ///
    /// # Errors
    /// `InvalidArgument` with the place and the reason.
    pub fn from_toml(text: &str) -> Result<Self> {
        check_length(text)?;
        // The message of the reader shows the line that it is about; the first line of it would not be enough.
        let read: PolicyText =
            toml::from_str(text).map_err(|source| refuse("TOML", source.to_string().trim_end()))?;
        read.into_policy()
    }

    /// Reads a policy from JSON.
    ///
    /// # Errors
    /// `InvalidArgument` with the place and the reason.
    pub fn from_json(text: &str) -> Result<Self> {
        check_length(text)?;
        let read: PolicyText =
            serde_json::from_str(text).map_err(|source| refuse("JSON", &source.to_string()))?;
        read.into_policy()
    }

    /// Reads a policy from JSON when the text begins with a brace, else from TOML.
    ///
    /// # Errors
    /// `InvalidArgument` with the place and the reason.
    pub fn from_text(text: &str) -> Result<Self> {
        if text.trim_start().starts_with('{') { Self::from_json(text) } else { Self::from_toml(text) }
    }

    /// The policy as TOML, in canonical form.
    pub fn to_toml(&self) -> String {
        toml::to_string(&PolicyText::from(self)).expect("the text form has only string keys and plain values")
    }

    /// The policy as JSON on one line, in canonical form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&PolicyText::from(self))
            .expect("the text form has only string keys and plain values")
    }
}

fn check_length(text: &str) -> Result<()> {
    let bytes = text.len();
    if bytes > POLICY_BYTES_MAX {
        return Err(refuse("text", &format!("has {bytes} bytes; at most {POLICY_BYTES_MAX} are read")));
    }
    Ok(())
}

impl PolicyText {
    fn into_policy(self) -> Result<Policy> {
        let windows =
            self.window.into_iter().enumerate().map(|(index, window)| window.into_window(index + 1));
        let policy = Policy {
            windows: windows.collect::<Result<_>>()?,
            max_age: self.max_age.map(|age| age.0),
            max_bytes: self.max_bytes.map(|bytes| bytes.0),
            on_shortage: match self.on_shortage {
                ShortageText::Prune => OnShortage::Prune,
                ShortageText::Stop => OnShortage::Stop,
            },
        };
        policy.validate()?;
        Ok(policy)
    }
}

impl WindowText {
    fn into_window(self, number: usize) -> Result<Window> {
        let kinds = |kinds: Vec<KindText>| kinds.into_iter().map(|kind| kind.0).collect();
        let keep = match self.keep {
            WordOr::Word(KeepWord::All) => Keep::All,
            WordOr::Word(KeepWord::None) => Keep::None,
            WordOr::Table(slots) => Keep::Every(Slots {
                interval: slots.every.0,
                per_slot: slots.per_slot,
                prefer: kinds(slots.prefer),
            }),
        };
        let bookmarks = match self.bookmarks {
            WordOr::Word(BookmarksWord::All) => BookmarkFilter::All,
            WordOr::Word(BookmarksWord::None) => BookmarkFilter::None,
            WordOr::Table(only) => BookmarkFilter::Only(BookmarkSelection {
                kinds: only.kinds.map(kinds),
                types: only.types,
                names: match only.names {
                    Some(names) => Some(NamePattern::new(&names).map_err(|reason| {
                        refuse(&format!("window {number}, bookmarks.names"), &reason.to_string())
                    })?),
                    None => None,
                },
            }),
        };
        Ok(Window { to: self.to.0, keep, bookmarks })
    }
}

impl From<&Policy> for PolicyText {
    fn from(policy: &Policy) -> Self {
        Self {
            on_shortage: match policy.on_shortage {
                OnShortage::Prune => ShortageText::Prune,
                OnShortage::Stop => ShortageText::Stop,
            },
            max_age: policy.max_age.map(DurationText),
            max_bytes: policy.max_bytes.map(SizeText),
            window: policy.windows.iter().map(WindowText::from).collect(),
        }
    }
}

impl From<&Window> for WindowText {
    fn from(window: &Window) -> Self {
        let kinds = |kinds: &Vec<BookmarkKind>| kinds.iter().copied().map(KindText).collect();
        Self {
            to: DurationText(window.to),
            keep: match &window.keep {
                Keep::All => WordOr::Word(KeepWord::All),
                Keep::None => WordOr::Word(KeepWord::None),
                Keep::Every(slots) => WordOr::Table(SlotsText {
                    every: DurationText(slots.interval),
                    per_slot: slots.per_slot,
                    prefer: kinds(&slots.prefer),
                }),
            },
            bookmarks: match &window.bookmarks {
                BookmarkFilter::None => WordOr::Word(BookmarksWord::None),
                BookmarkFilter::All => WordOr::Word(BookmarksWord::All),
                BookmarkFilter::Only(only) => WordOr::Table(SelectionText {
                    kinds: only.kinds.as_ref().map(kinds),
                    types: only.types.clone(),
                    names: only.names.as_ref().map(|names| names.as_str().to_owned()),
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    const REFERENCE: &str = r#"
on_shortage = "prune"          # or "stop"
max_age   = "28d"              # bound by time
max_bytes = "200G"             # bound by space; either, both or none

[[window]]
to = "24h"
keep = "all"

[[window]]
to = "48h"
keep = { every = "4h", per_slot = 1, prefer = ["app", "fs", "user"] }
bookmarks = "all"

[[window]]
to = "28d"
keep = "none"
bookmarks = { kinds = ["app"], types = ["postgresql"], names = "nightly-*" }
"#;

    fn reference() -> Policy {
        Policy {
            windows: vec![
                Window { to: 24 * HOUR, keep: Keep::All, bookmarks: BookmarkFilter::None },
                Window {
                    to: 48 * HOUR,
                    keep: Keep::Every(Slots {
                        interval: 4 * HOUR,
                        per_slot: 1,
                        prefer: vec![BookmarkKind::Application, BookmarkKind::FileSystem, BookmarkKind::User],
                    }),
                    bookmarks: BookmarkFilter::All,
                },
                Window {
                    to: 28 * 24 * HOUR,
                    keep: Keep::None,
                    bookmarks: BookmarkFilter::Only(BookmarkSelection {
                        kinds: Some(vec![BookmarkKind::Application]),
                        types: Some(vec!["postgresql".to_owned()]),
                        names: Some(NamePattern::new("nightly-*").unwrap()),
                    }),
                },
            ],
            max_age: Some(28 * 24 * HOUR),
            max_bytes: Some(200 << 30),
            on_shortage: OnShortage::Prune,
        }
    }

    /// Goal: the policy of the documentation is read as it is meant, and both forms read back. Method: compare.
    #[test]
    fn the_reference_policy_is_read_and_written() {
        let policy = Policy::from_toml(REFERENCE).unwrap();
        assert_eq!(policy, reference());
        assert_eq!(Policy::from_text(&policy.to_toml()).unwrap(), policy);
        assert_eq!(Policy::from_text(&policy.to_json()).unwrap(), policy);
        assert_eq!(Policy::from_json(&policy.to_json()).unwrap().to_json(), policy.to_json());
    }

    /// Goal: nothing given means that everything stays. Method: empty texts.
    #[test]
    fn an_empty_policy_keeps_everything() {
        for policy in [Policy::from_text("").unwrap(), Policy::from_text(" {}").unwrap()] {
            assert!(policy.keeps_everything());
            assert_eq!(policy, Policy::default());
        }
        assert_eq!(Policy::from_toml(&Policy::default().to_toml()).unwrap(), Policy::default());
        assert_eq!(Policy::from_json(r#"{"max_bytes": 1073741824}"#).unwrap().max_bytes, Some(1 << 30));
    }

    /// Goal: a wrong text is refused with the name of what is wrong. Method: one text for each rule.
    #[test]
    fn wrong_texts_are_refused_by_name() {
        let keep = |keep: &str| format!("[[window]]\nto = \"1h\"\nkeep = {keep}\n");
        let bookmarks =
            |filter: &str| format!("[[window]]\nto = \"1h\"\nkeep = \"all\"\nbookmarks = {filter}\n");
        for (text, named) in [
            ("max_aeg = \"1d\"".to_owned(), "max_aeg"),
            ("max_age = 5".to_owned(), "max_age"),
            ("max_age = \"5\"".to_owned(), "unit"),
            ("max_bytes = -1".to_owned(), "negative"),
            ("max_bytes = \"1Q\"".to_owned(), "1Q"),
            ("on_shortage = \"panic\"".to_owned(), "panic"),
            ("[[window]]\nkeep = \"all\"".to_owned(), "to"),
            ("[[window]]\nto = \"1h\"".to_owned(), "keep"),
            (keep("\"some\""), "some"),
            (keep("3"), "keep"),
            (keep("{ per_slot = 1 }"), "every"),
            (keep("{ every = \"0s\" }"), "zero"),
            (keep("{ every = \"1h\", per_slot = 0 }"), "per_slot"),
            (keep("{ every = \"1h\", per_slot = -1 }"), "per_slot"),
            (keep("{ every = \"1h\", prefer = [\"db\"] }"), "db"),
            (keep("{ every = \"1h\", slots = 3 }"), "slots"),
            (bookmarks("\"some\""), "some"),
            (bookmarks("{ kind = [\"app\"] }"), "kind"),
            (bookmarks("{ names = \"\" }"), "names"),
            (bookmarks("{ }"), "bookmarks"),
            (
                "[[window]]\nto = \"2h\"\nkeep = \"all\"\n[[window]]\nto = \"1h\"\nkeep = \"none\""
                    .to_owned(),
                "window 2",
            ),
            ("{\"window\": 3}".to_owned(), "JSON"),
            ("window = [".to_owned(), "TOML"),
        ] {
            let message = Policy::from_text(&text).expect_err(&text).to_string();
            assert!(message.contains(named), "{text}: {message}");
        }
    }

    /// Goal: a text at the bound is read, one past it is not looked at. Method: comments of that length.
    #[test]
    fn the_length_of_a_text_is_bounded() {
        assert!(Policy::from_text(&"#".repeat(POLICY_BYTES_MAX)).is_ok());
        let message = Policy::from_text(&"#".repeat(POLICY_BYTES_MAX + 1)).expect_err("too long").to_string();
        assert!(message.contains("bytes"), "{message}");
        assert!(Policy::from_json(&format!("{{\"window\":{}", "[".repeat(60_000))).is_err());
        assert!(Policy::from_toml(&format!("window = {}", "[".repeat(60_000))).is_err());
    }
}

//! The sets of chunked changes: where their members wait for each other, when a set is whole, and how its fragments are
//! joined.
//!
//! `fragments/<chunk_id>/` holds one object for each fragment and one for each main record. An object is the whole
//! record, as [`crate::record::delivery::Record`] writes it. The names of the objects tell the members, so a listing
//! shows whether the set is whole. If two fragments of one place differ, both stay, and the checksum tells which is
//! right.
//!
//! A member that a replay of the quarantine puts there is named `…-replayed.json`.
//!
//! Invariants: pure; a fragment that is delivered twice has one object; a whole set stays whole, so that a late
//! duplicate does not begin a new set.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use crc_fast::CrcAlgorithm;
use serde_json::value::RawValue;

use crate::bucket::{StoredObject, segment};
use crate::hash::hash;
use crate::record::chunked::{ChunkedImage, Fragment};

/// The folder of all sets.
pub const FRAGMENTS: &str = "fragments/";

/// The number of digits of a hash that tell the objects of a set apart.
const HASH_DIGITS: usize = 16;

/// The most bytes that the objects of a set may have for its fragments to be joined. They hold the image in Base64, a
/// third longer, with quotation marks and backslashes escaped. This leaves room for any image of 60 MB. A row of 2 MiB
/// of compressed text can become that large.
pub const LARGEST_SET: u64 = 160 * 1024 * 1024;

/// The most bytes that a joined image may have. Twice as many are then in memory, and as many again for the text that
/// its escapes stand for. In all, that is some 350 MB of the function's 512 MB.
pub const LARGEST_IMAGE: usize = 64 * 1024 * 1024;

/// The most ways of joining a set that are tried if fragments of one place differ.
const MOST_WAYS: usize = 64;

/// The folder of a set's members.
pub fn folder(chunk_id: &str) -> String {
    format!("{FRAGMENTS}{}/", segment(chunk_id))
}

/// The object of a fragment.
pub fn fragment_object(fragment: &Fragment<'_>) -> String {
    let hash = &hash(fragment.json().as_bytes())[..HASH_DIGITS];
    format!("{}piece-{:03}-{hash}.json", folder(&fragment.chunk_id), fragment.index)
}

/// The object of a main record, in the set of an image that it needs.
pub fn main_record_object(image: &ChunkedImage<'_>, record: &[u8]) -> String {
    let hash = &hash(record)[..HASH_DIGITS];
    format!("{}main-{:04}-{hash}.json", folder(&image.chunk_id), image.total_fragments)
}

/// The object that marks a set whose image nobody needs, for example because its table is not configured.
pub fn not_needed_object(image: &ChunkedImage<'_>) -> String {
    format!("{}{NOT_NEEDED}", folder(&image.chunk_id))
}

const NOT_NEEDED: &str = "not-needed.json";

/// The end of the name of an object that a replay of the quarantine put there.
const REPLAYED: &str = "-replayed.json";

/// The object of a member that a replay puts there. The row may have been deleted since. The name keeps that known,
/// also if a member from the stream completes the set later.
pub fn replayed(object: &str) -> String {
    format!("{}{REPLAYED}", object.strip_suffix(".json").unwrap_or(object))
}

/// The objects of a set.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FragmentSet {
    /// Its main records, each with the number of fragments that it names.
    pub main_records: Vec<(u32, StoredObject)>,
    /// Its fragments by their place; a place has several if they differ.
    pub fragments: BTreeMap<u32, Vec<StoredObject>>,
    not_needed: bool,
}

/// Whether a replay put the object there.
pub fn is_replayed(object: &str) -> bool {
    object.ends_with(REPLAYED)
}

/// Whether two objects are of the same member, no matter whether it came from the stream or from a replay.
pub fn is_same(one: &str, other: &str) -> bool {
    let stem = |object| str::strip_suffix(object, REPLAYED).or_else(|| object.strip_suffix(".json"));
    stem(one) == stem(other)
}

impl FragmentSet {
    /// The set with these objects in its `folder`. Objects with other names are ignored.
    pub fn of(folder: &str, objects: impl IntoIterator<Item = StoredObject>) -> Self {
        let mut set = Self::default();
        let objects: Vec<StoredObject> = objects.into_iter().collect();
        let not_replayed: HashSet<String> =
            objects.iter().filter(|object| !is_replayed(&object.key)).map(|object| replayed(&object.key)).collect();
        for object in objects {
            // The same member also came from the stream or by force, so it does not count as replayed.
            if not_replayed.contains(&object.key) {
                continue;
            }
            let Some(name) = object.key.strip_prefix(folder) else { continue };
            let number = |part: Option<&str>| part.and_then(|digits| digits.parse().ok());
            let mut parts = name.split('-');
            match (parts.next(), number(parts.next())) {
                (Some("main"), Some(total)) => set.main_records.push((total, object)),
                (Some("piece"), Some(index)) => set.fragments.entry(index).or_default().push(object),
                _ => set.not_needed |= name == NOT_NEEDED,
            }
        }
        set
    }

    /// The main records whose fragments are all there, each with the number of fragments that it names.
    pub fn whole(&self) -> impl Iterator<Item = (u32, &StoredObject)> {
        let whole = self.main_records.iter().filter(|(total, _)| self.missing(*total) == 0);
        whole.map(|(total, object)| (*total, object))
    }

    /// Whether an object is one of its main records.
    pub fn has_main_record(&self, key: &str) -> bool {
        self.main_records.iter().any(|(_, object)| is_same(&object.key, key))
    }

    fn missing(&self, total: u32) -> usize {
        (0..total).filter(|index| !self.fragments.contains_key(index)).count()
    }

    /// The fragments of a main record that names `total` of them.
    pub fn fragments_of(&self, total: u32) -> impl Iterator<Item = &StoredObject> {
        self.fragments.range(..total).flat_map(|(_, variants)| variants)
    }

    /// Whether a replay put this main record there, or one of the `total` fragments that it names.
    pub fn is_replayed(&self, main_record: &StoredObject, total: u32) -> bool {
        self.fragments_of(total).chain([main_record]).any(|object| is_replayed(&object.key))
    }

    /// The fragments for which no main record of the set has a place, with the largest number of fragments that one
    /// names. `None` if the set has no main record, or no such fragments.
    pub fn outside(&self) -> Option<(u32, Vec<&StoredObject>)> {
        let total = self.main_records.iter().map(|(total, _)| *total).max()?;
        let fragments: Vec<_> = self.fragments.range(total..).flat_map(|(_, variants)| variants).collect();
        (!fragments.is_empty()).then_some((total, fragments))
    }

    /// The members that the set waits for, if it waits.
    pub fn waits_for(&self) -> Option<Missing> {
        if self.main_records.is_empty() {
            return (!self.not_needed).then_some(Missing::MainRecord);
        }
        let missing = self.main_records.iter().map(|(total, _)| (self.missing(*total), *total));
        let (missing, total) = missing.filter(|(missing, _)| *missing > 0).min()?;
        Some(Missing::Fragments { missing, total })
    }

    /// When the oldest of its objects was written.
    pub fn oldest(&self) -> Option<SystemTime> {
        let objects = self.main_records.iter().map(|(_, object)| object).chain(self.fragments.values().flatten());
        objects.map(|object| object.written_at).min()
    }
}

/// The members that a set waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Missing {
    MainRecord,
    Fragments { missing: usize, total: u32 },
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MainRecord => f.write_str("its main record"),
            Self::Fragments { missing, total } => write!(f, "{missing} of {total} pieces"),
        }
    }
}

/// Why a whole set does not make a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum AssemblyError {
    #[error(
        "the joined fragments do not have the CRC32C that the main record names: a fragment is wrong, or of another change"
    )]
    Checksum,
    #[error("the fragments have {bytes} bytes as they are kept: at most {LARGEST_SET} are put together")]
    TooLarge { bytes: u64 },
    #[error("the joined fragments have {bytes} bytes: at most {LARGEST_IMAGE} are put together")]
    ImageTooLarge { bytes: usize },
    #[error("the joined fragments are no JSON: it goes wrong at line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("its index is outside the set, whose main record names {total} fragments")]
    Outside { total: u32 },
    #[error("an object of the set is no record as it was kept there: {object}")]
    NotAMember { object: String },
}

/// Joins the fragments of an image. `fragments` has the places in their order, with all variants of each.
///
/// # Errors
/// The image is over [`LARGEST_IMAGE`], or no way of joining that was tried gives its checksum.
pub fn join(image: &ChunkedImage<'_>, fragments: &[Vec<String>]) -> Result<String, AssemblyError> {
    let ways =
        fragments.iter().try_fold(1_usize, |ways, variants| ways.checked_mul(variants.len())).unwrap_or(usize::MAX);
    let bytes = fragments.iter().filter_map(|variants| variants.first()).map(String::len).sum();
    if bytes > LARGEST_IMAGE {
        return Err(AssemblyError::ImageTooLarge { bytes });
    }
    let mut joined = String::with_capacity(bytes);
    for way in 0..ways.min(MOST_WAYS) {
        joined.clear();
        let mut rest = way;
        for variants in fragments {
            joined.push_str(&variants[rest % variants.len()]);
            rest /= variants.len();
        }
        if crc32c(joined.as_bytes()) == image.crc32c {
            return Ok(joined);
        }
    }
    Err(AssemblyError::Checksum)
}

/// The joined image as JSON.
///
/// # Errors
/// The text is not JSON.
pub fn image(joined: &str) -> Result<&RawValue, AssemblyError> {
    serde_json::from_str(joined).map_err(|error| AssemblyError::NotJson { line: error.line(), column: error.column() })
}

/// CRC32C (Castagnoli), which the catalogue of checksums calls CRC-32/ISCSI.
fn crc32c(bytes: &[u8]) -> u32 {
    let checksum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(checksum).unwrap_or_else(|_| unreachable!("a checksum of 32 bits has no more"))
}

/// Checks that fragments whose objects have `bytes` bytes can be joined in memory.
///
/// # Errors
/// The objects are over [`LARGEST_SET`].
pub fn check_size(bytes: u64) -> Result<(), AssemblyError> {
    if bytes > LARGEST_SET { Err(AssemblyError::TooLarge { bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::record::decode::{self, Envelope};

    fn image(total_fragments: u32, of: &str) -> ChunkedImage<'static> {
        ChunkedImage { chunk_id: Cow::Borrowed("x"), total_fragments, crc32c: crc32c(of.as_bytes()) }
    }

    fn set(names: &[&str]) -> FragmentSet {
        let object = |name: &&str| StoredObject {
            key: format!("fragments/x/{name}"),
            size: 1,
            written_at: SystemTime::UNIX_EPOCH,
        };
        FragmentSet::of("fragments/x/", names.iter().map(object))
    }

    #[test]
    fn a_hundred_and_sixty_mebibytes_are_put_together_and_no_more() {
        assert_eq!(check_size(167_772_160), Ok(()));
        assert_eq!(check_size(167_772_161), Err(AssemblyError::TooLarge { bytes: 167_772_161 }));
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_set_is_whole_when_its_main_record_and_each_of_its_fragments_is_there() {
        for (names, waits_for) in [
            (&["piece-000-a.json"][..], Some(Missing::MainRecord)),
            (&["main-0002-a.json"], Some(Missing::Fragments { missing: 2, total: 2 })),
            (&["main-0002-a.json", "piece-001-a.json"], Some(Missing::Fragments { missing: 1, total: 2 })),
            (
                &["main-0002-a.json", "piece-001-a.json", "piece-002-a.json"],
                Some(Missing::Fragments { missing: 1, total: 2 }),
            ),
            (&["main-0002-a.json", "piece-000-a.json", "piece-001-a.json", "piece-001-b.json"], None),
            (
                &["main-0009-b.json", "main-0001-a.json", "piece-000-a.json"],
                Some(Missing::Fragments { missing: 8, total: 9 }),
            ),
            (&["not-needed.json", "piece-000-a.json"], None),
            (&["something-else", "piece-x-a.json"], Some(Missing::MainRecord)),
        ] {
            assert_eq!(set(names).waits_for(), waits_for, "{names:?}");
        }
    }

    #[test]
    fn what_a_set_waits_for_is_said_in_words() {
        assert_eq!(Missing::MainRecord.to_string(), "its main record");
        assert_eq!(Missing::Fragments { missing: 2, total: 3 }.to_string(), "2 of 3 pieces");
    }

    #[test]
    fn a_set_tells_which_of_its_main_records_are_whole() {
        let set = set(&["main-0001-a.json", "main-0002-b.json", "piece-000-a.json"]);
        let whole: Vec<_> = set.whole().map(|(total, object)| (total, object.key.as_str())).collect();
        assert_eq!(whole, [(1, "fragments/x/main-0001-a.json")]);
        assert!(set.has_main_record("fragments/x/main-0002-b.json"));
        assert!(!set.has_main_record("fragments/x/piece-000-a.json"));
    }

    #[test]
    fn a_set_is_as_old_as_its_oldest_object() {
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let object = |name: &str, seconds| StoredObject { key: name.to_owned(), size: 1, written_at: at(seconds) };
        for (main, fragment) in [(2, 3), (3, 2)] {
            let set =
                FragmentSet::of("x/", [object("x/main-0001-a.json", main), object("x/piece-000-a.json", fragment)]);
            assert_eq!(set.oldest(), Some(at(2)));
        }
        assert_eq!(FragmentSet::default().oldest(), None);
    }

    #[test]
    fn a_main_record_s_object_tells_how_many_fragments_it_names() {
        let image = image(3, "{}");
        assert_eq!(main_record_object(&image, b"abc"), "fragments/x/main-0003-ba7816bf8f01cfea.json");
        assert_eq!(not_needed_object(&image), "fragments/x/not-needed.json");
    }

    #[test]
    fn a_fragment_after_the_last_place_is_outside() {
        let set = set(&["main-0001-a.json", "piece-000-a.json", "piece-001-a.json"]);
        let (total, outside) = set.outside().unwrap();
        assert_eq!((total, outside[0].key.as_str(), outside.len()), (1, "fragments/x/piece-001-a.json", 1));
        assert_eq!(set.fragments_of(1).count(), 1);
    }

    #[test]
    fn the_checksum_picks_the_right_ones_of_fragments_that_differ() {
        let fragments = |fragments: &[&[&str]]| -> Vec<Vec<String>> {
            fragments.iter().map(|variants| variants.iter().map(|text| (*text).to_owned()).collect()).collect()
        };
        let whole = r#"{"id":1}"#;
        assert_eq!(join(&image(2, whole), &fragments(&[&["{\"id\""], &[":1}"]])).unwrap(), whole);
        assert_eq!(join(&image(2, whole), &fragments(&[&["bad", "{\"id\""], &[":2}", ":1}"]])).unwrap(), whole);
        for (first, second) in [(["bad", "{\"id\""], [":1}", ":2}"]), (["{\"id\"", "bad"], [":2}", ":1}"])] {
            assert_eq!(join(&image(2, whole), &fragments(&[&first, &second])).unwrap(), whole);
        }
        assert_eq!(join(&image(2, whole), &fragments(&[&["{\"id\""], &[":2}"]])), Err(AssemblyError::Checksum));
        let many: Vec<Vec<String>> = (0..100).map(|_| vec!["a".to_owned(), "b".to_owned()]).collect();
        assert_eq!(join(&image(100, "other"), &many), Err(AssemblyError::Checksum));
    }

    #[test]
    fn a_fragment_s_object_tells_its_place_and_what_it_holds() {
        let object = |index: u32, data: &str| {
            let record = format!(r#"{{"type":"fragment","chunk_id":"x","index":{index},"data":"{data}"}}"#);
            match decode::read(record.as_bytes()) {
                Ok(Envelope::Fragment(fragment)) => fragment_object(&fragment),
                other => panic!("{record} is {other:?}"),
            }
        };
        let hash = &hash(b"\"a\"")[..16];
        assert_eq!(object(7, "a"), format!("fragments/x/piece-007-{hash}.json"));
        assert_eq!(object(7, "a"), object(7, "a"));
        assert_ne!(object(7, "a"), object(7, "b"));
    }

    #[test]
    fn no_name_of_a_set_leaves_the_folder_of_all_sets() {
        assert_eq!(folder("../../quarantine/x"), "fragments/%2E%2E%2F%2E%2E%2Fquarantine%2Fx/");
    }
}

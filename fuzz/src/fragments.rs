//! Chunked changes: main records and fragments in any order, repeated, altered, with hostile names. They go through the
//! real assembly, into a bucket and a view in memory.
//!
//! An input is a series of letters, each followed by digits; other bytes in a letter's place are skipped. Digits count
//! from `0` and wrap.
//!
//! | letters | |
//! |---|---|
//! | `N` set, row, commit, kind, fragments | a change: its set's name is one of [`SETS`], its kind one of [`Kind`] |
//! | `M` change | its main record comes |
//! | `P` change, fragment | a fragment of it comes |
//! | `A` change, fragment, way | the fragment comes altered |
//! | `W` change, way | its main record comes altered |
//! | `/` | the records so far are a batch |

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use dsql_view::record::chunked::ChunkedImage;
use dsql_view::record::fragments::{self, AssemblyError, FragmentSet};

use super::contract::Expected;
use super::world::{CONTRACT, World};

const COMMIT: u64 = 1_773_843_841_076_494_565;
/// How many ways of joining a set are tried.
const MOST_WAYS: usize = 64;
const MOST_STEPS: usize = 200;
const LONGEST_SET_NAME: usize = 600;

/// Names of sets.
const SETS: [&str; 8] = ["a", "b", "../../quarantine/public.users", "", "grün/\u{0}\"\\😀", "%2E%2E", ".", "LONG"];

/// What a change does, and which of its images are in fragments.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Upsert,
    Delete,
    /// An upsert whose `before` is in fragments too.
    Both,
    /// An upsert with only the unneeded image in fragments.
    OnlyUnneeded,
    /// An upsert of a table that is not configured.
    NotConfigured,
    /// A row without its key.
    NoRow,
}

const KINDS: [Kind; 6] = [Kind::Upsert, Kind::Delete, Kind::Both, Kind::OnlyUnneeded, Kind::NotConfigured, Kind::NoRow];

/// A chunked change.
struct Change {
    set: String,
    kind: Kind,
    commit: usize,
    image: String,
    fragments: Vec<String>,
    main_has_come: bool,
}

/// Checks the result of a series of deliveries.
pub fn check(data: &[u8]) {
    let mut steps = Steps { digits: data.iter() };
    let mut changes: Vec<Change> = Vec::new();
    let mut come = Deliveries::default();
    let mut batch: Vec<String> = Vec::new();
    for _ in 0..MOST_STEPS {
        match steps.digits.next() {
            Some(b'N') => changes.push(Change::of(&mut steps)),
            Some(b'/') => come.world.deliver(&std::mem::take(&mut batch)),
            Some(letter) if !changes.is_empty() => {
                let change = steps.below(changes.len());
                batch.extend(changes[change].record(*letter, &mut steps, &mut come));
            }
            Some(_) => {}
            None => break,
        }
    }
    come.world.deliver(&batch);
    // All records again, in one batch: nothing may change.
    let shown = come.world.view.borrow().clone();
    come.world.deliver(&come.world.delivered.clone());
    assert_eq!(*come.world.view.borrow(), shown, "a second delivery changes the view");
    come.assert_complete(&changes);
    come.assert_nothing_else(&changes);
    come.world.assert_folders();
}

struct Steps<'d> {
    digits: std::slice::Iter<'d, u8>,
}

impl Steps<'_> {
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.digits.next().copied().unwrap_or(b'0').wrapping_sub(b'0')) % end
    }
}

impl Change {
    fn of(steps: &mut Steps<'_>) -> Self {
        let set = match SETS[steps.below(SETS.len())] {
            "LONG" => "/".repeat(LONGEST_SET_NAME),
            name => name.to_owned(),
        };
        let (row, commit, kind) = (steps.below(4), steps.below(8), KINDS[steps.below(KINDS.len())]);
        let image = match kind {
            Kind::Delete => format!(r#"{{"id":{row}}}"#),
            Kind::NoRow => r#"{"name":"x"}"#.to_owned(),
            _ => format!(r#"{{"id":{row},"name":"grün \"\\ü😀 {commit}","list":[{commit},null]}}"#),
        };
        let count = 1 + steps.below(9);
        let characters: Vec<char> = image.chars().collect();
        let each = characters.len().div_ceil(count);
        let fragments =
            (0..count).map(|fragment| characters.iter().skip(fragment * each).take(each).collect()).collect();
        Self { set, kind, commit, image, fragments, main_has_come: false }
    }

    fn record(&mut self, letter: u8, steps: &mut Steps<'_>, come: &mut Deliveries) -> Option<String> {
        Some(match letter {
            b'M' => {
                self.main_has_come = true;
                self.main_record(self.fragments.len(), crc32c(self.image.as_bytes()))
            }
            b'W' => match steps.below(4) {
                0 => self.main_record(self.fragments.len() + 1, crc32c(self.image.as_bytes())),
                1 => self.main_record(self.fragments.len() - 1, crc32c(self.image.as_bytes())),
                2 => self.main_record(self.fragments.len(), 7),
                _ => self.main_record(1, crc32c(self.fragments[0].as_bytes())),
            },
            b'P' => {
                let fragment = steps.below(self.fragments.len());
                come.fragment(&self.set, fragment, &self.fragments[fragment])
            }
            b'A' => {
                let fragment = steps.below(self.fragments.len() + 2);
                let text = match steps.below(4) {
                    0 => String::new(),
                    1 => self.fragments[0].clone(),
                    2 => self.image.clone(),
                    way => format!("{way}{}", steps.below(10)),
                };
                come.fragment(&self.set, fragment, &text)
            }
            _ => return None,
        })
    }

    fn main_record(&self, total: usize, checksum: u32) -> String {
        let entry = |set: &str| serde_json::json!({ "chunk_id": set, "total_fragments": total, "crc32c": checksum.to_string() });
        let chunked = match self.kind {
            Kind::Delete | Kind::OnlyUnneeded => serde_json::json!({ "before": entry(&self.set) }),
            Kind::Both => serde_json::json!({ "before": entry("unneeded"), "after": entry(&self.set) }),
            _ => serde_json::json!({ "after": entry(&self.set) }),
        };
        let inline = self.kind == Kind::OnlyUnneeded;
        self.json("chunked", if inline { &self.image } else { "null" }, &format!(r#","chunked":{chunked}"#))
    }

    /// The record as it would be unsplit.
    fn whole(&self) -> String {
        self.json("full", &self.image, "")
    }

    fn json(&self, of_type: &str, image: &str, more: &str) -> String {
        let (op, place) = if self.kind == Kind::Delete { ("d", "before") } else { ("u", "after") };
        let table = if self.kind == Kind::NotConfigured { "other" } else { "users" };
        let ts_ns = COMMIT + self.commit as u64;
        format!(
            r#"{{"type":"{of_type}","op":"{op}","{place}":{image},"source":{{"schema":"public","table":"{table}","txId":"t","ts_ns":{ts_ns}}},"ts_ns":{}{more}}}"#,
            ts_ns + 1
        )
    }
}

/// The records of the changes that have come.
#[derive(Default)]
struct Deliveries {
    world: World,
    /// The texts that came for each place of each set.
    fragments: HashMap<(String, usize), BTreeSet<String>>,
}

impl Deliveries {
    fn fragment(&mut self, set: &str, index: usize, text: &str) -> String {
        self.fragments.entry((set.to_owned(), index)).or_default().insert(text.to_owned());
        serde_json::json!({ "type": "fragment", "chunk_id": set, "index": index, "data": text }).to_string()
    }

    /// The texts that have come for each place of a change.
    fn variants(&self, change: &Change, total: usize) -> Vec<Vec<String>> {
        let of_place = |place| self.fragments.get(&(change.set.clone(), place)).cloned().unwrap_or_default();
        (0..total).map(|place| of_place(place).into_iter().collect()).collect()
    }

    /// If all of a change has come, the view shows it or a newer change of its row.
    fn assert_complete(&self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.main_has_come && !change.set.is_empty()) {
            let variants = self.variants(change, change.fragments.len());
            let ways: usize = variants.iter().map(Vec::len).product();
            let has_come = change.fragments.iter().zip(&variants).all(|(fragment, come)| come.contains(fragment));
            assert_joined(change, &variants, has_come && ways <= MOST_WAYS);
            let Expected::Row(row) = CONTRACT.expects(change.whole().as_bytes()) else { continue };
            let inline = change.kind == Kind::OnlyUnneeded;
            if inline || (has_come && ways <= MOST_WAYS) {
                let view = self.world.view.borrow();
                let shown = view.get(&row.key().into()).unwrap_or_else(|| panic!("{} is not shown", row.key()));
                assert!(shown.committed.to_string().parse::<u64>().unwrap() >= row.committed);
            }
            if has_come {
                let folder = fragments::folder(&change.set);
                let set = FragmentSet::of(&folder, self.world.stored(&folder));
                let whole = set.whole().any(|(total, _)| total as usize == change.fragments.len());
                assert!(inline || whole, "{change:?} is not whole", change = change.set);
            }
        }
    }

    /// The view shows only what some change says, letter for letter.
    fn assert_nothing_else(&self, changes: &[Change]) {
        for shown in self.world.view.borrow().values() {
            let says_so = changes.iter().any(|change| {
                let Expected::Row(row) = CONTRACT.expects(change.whole().as_bytes()) else { return false };
                let mut attributes = shown.attributes.clone();
                let tombstone = matches!(attributes.remove("_expires_at"), Some(AttributeValue::N(_)));
                shown.key == row.key().into() && tombstone == row.deleted && attributes == row.attributes
            });
            assert!(says_so, "no change says {shown:?}");
        }
    }
}

/// Checks that joining these texts gives the image or fails with the checksum; with `must`, it gives the image.
fn assert_joined(change: &Change, variants: &[Vec<String>], must: bool) {
    let image = ChunkedImage {
        chunk_id: change.set.as_str().into(),
        total_fragments: u32::try_from(variants.len()).unwrap(),
        crc32c: crc32c(change.image.as_bytes()),
    };
    match fragments::join(&image, variants) {
        Ok(text) => assert_eq!(text, change.image),
        Err(error) => assert!(!must && error == AssemblyError::Checksum, "{error}"),
    }
}

/// CRC32C, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |checksum: u32, byte| {
        (0..8).fold(checksum ^ u32::from(*byte), |bits, _| (bits >> 1) ^ if bits & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

//! A memory of the commits that the view is known to show, so that a change which the view would not take costs no
//! request.
//!
//! What may happen between any two steps, and why it stays right to leave out the write:
//! - The view has confirmed a commit of a key, as applied or as superseded: from then on it shows that commit or a
//!   newer one, whoever writes next, because every write has the condition.
//! - The outcome of a write is not known: nothing is remembered of it.
//! - A tombstone expires: the row is still deleted. Changes older than the deletion stay out, which was the purpose of
//!   the tombstone.
//! - The function dies: its memory goes with it, and records that come again are written as usual.
//! - A crash left objects of a change with moved columns: such a change always goes to the view, whatever is
//!   remembered, and that clears the objects. This also holds if this process itself has applied the change. Another
//!   function may since have written a newer commit and retired the objects. A third function, to which the change came
//!   again, may then have put the objects anew and died. Only the view tells whether they are the live ones.
//! - Somebody removes items from the table, or puts an old copy of the table in its place: the memory is wrong, and is
//!   forgotten after [`REMEMBERED_FOR`].
//!
//! Kept by hand because the cache itself is only 35 lines, and its size must stay fixed, at 2.1 MB.
//!
//! Invariants: fixed size; a confirmed commit is never remembered as newer than it is, so only writes are left out that
//! the condition would refuse; a write that was left out does not prolong the memory.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::batch::disposition::Superseded;
use crate::item::key::ItemKey;
use crate::item::projection::ViewItem;
use crate::item::schema::TableSchema;
use crate::lock::lock;
use crate::record::order::CommitTimestamp;
use crate::write::view::{Put, View};

/// How long the memory relies on a confirmation by the view. Records that Lambda delivers again to a living process
/// come within seconds.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// The number of sets. It is a prime, so that no pattern in the hashes favours a set. With [`WAYS`] places each, there
/// is room for some 65,000 keys, a dozen full payloads, in 2.1 MB.
const SETS: usize = 16_381;
const WAYS: usize = 4;

/// A view that leaves out the writes which it knows the view behind it would refuse.
#[derive(Debug)]
pub struct Remembering<V> {
    view: V,
    known: Mutex<KnownCommits>,
}

impl<V> Remembering<V> {
    /// Remembers what `view` confirms.
    pub fn new(view: V) -> Self {
        Self { view, known: Mutex::new(KnownCommits::new()) }
    }
}

impl<V: View> Remembering<V> {
    async fn ask(&self, key: Fingerprint, item: ViewItem) -> Put {
        let committed = item.committed;
        let put = self.view.put(item).await;
        if matches!(put, Put::Applied | Put::Superseded(Superseded::Told | Superseded::Same)) {
            lock(&self.known).insert(key, committed, SystemTime::now());
        }
        put
    }
}

impl<V: View> View for Remembering<V> {
    async fn put(&self, item: ViewItem) -> Put {
        let key = lock(&self.known).fingerprint(&item.key);
        let known = lock(&self.known).get(key, SystemTime::now());
        if item.moved.is_empty() && known.is_some_and(|known| !item.committed.supersedes(known)) {
            return Put::Superseded(Superseded::Remembered);
        }
        self.ask(key, item).await
    }

    async fn put_without_memory(&self, item: ViewItem) -> Put {
        let key = lock(&self.known).fingerprint(&item.key);
        self.ask(key, item).await
    }

    fn schema(&self) -> Option<Arc<TableSchema>> {
        self.view.schema()
    }

    async fn learn_schema(&self, known: Option<&TableSchema>) -> bool {
        self.view.learn_schema(known).await
    }

    fn may_create(&self, item: &ViewItem) -> bool {
        let key = lock(&self.known).fingerprint(&item.key);
        lock(&self.known).get(key, SystemTime::now()).is_none() && self.view.may_create(item)
    }

    async fn create(&self, items: Vec<ViewItem>) -> Vec<bool> {
        let commits = items.iter().map(|item| (lock(&self.known).fingerprint(&item.key), item.committed));
        let commits: Vec<_> = commits.collect();
        let created = self.view.create(items).await;
        let now = SystemTime::now();
        for ((key, committed), _) in commits.into_iter().zip(&created).filter(|(_, created)| **created) {
            lock(&self.known).insert(key, committed, now);
        }
        created
    }

    async fn clear(&self, superseded: &ViewItem) -> Result<(), String> {
        self.view.clear(superseded).await
    }
}

/// Stands for a key in this memory: 128 bits of keyed hashes. Two keys share one as rarely as somebody guesses a secret
/// key of that length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint([u64; 2]);

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Fingerprint,
    /// The newest confirmed commit; `None` if the place is free.
    committed: Option<CommitTimestamp>,
    /// When it was confirmed, in seconds since the epoch.
    confirmed_at: u64,
}

/// The newest confirmed commit of each recently written key.
#[derive(Debug)]
struct KnownCommits {
    hashes: [RandomState; 2],
    /// Sets of [`WAYS`] places; each key belongs to one set. The first commit allocates them all at once, and pages of
    /// memory are taken only as they are used.
    places: Vec<[Slot; WAYS]>,
}

const FREE: Slot = Slot { key: Fingerprint([0; 2]), committed: None, confirmed_at: 0 };

impl KnownCommits {
    fn new() -> Self {
        Self { hashes: [RandomState::new(), RandomState::new()], places: Vec::new() }
    }

    fn fingerprint(&self, key: &ItemKey) -> Fingerprint {
        Fingerprint([self.hashes[0].hash_one(key), self.hashes[1].hash_one(key)])
    }

    /// The newest commit of a key that the view is known to show at `now`.
    fn get(&self, key: Fingerprint, now: SystemTime) -> Option<CommitTimestamp> {
        let place = self.places.get(set(key))?.iter().find(|place| place.key == key)?;
        // A clock that was set back makes an age negative. Then the memory does not rely on the commit.
        let age = seconds(now).checked_sub(place.confirmed_at)?;
        if age < REMEMBERED_FOR.as_secs() { place.committed } else { None }
    }

    /// Remembers a commit that was confirmed at `now`. It replaces the key's earlier commit, or else the commit in its
    /// set that was confirmed longest ago.
    fn insert(&mut self, key: Fingerprint, committed: CommitTimestamp, now: SystemTime) {
        // A commit that the view refused as older than another one does not confirm the known commit anew.
        if self.get(key, now).is_some_and(|known| known.supersedes(committed)) {
            return;
        }
        if self.places.is_empty() {
            self.places = vec![[FREE; WAYS]; SETS];
        }
        let set = &mut self.places[set(key)];
        let of_key = set.iter().position(|place| place.key == key);
        let oldest = || (0..WAYS).min_by_key(|&place| set[place].confirmed_at);
        if let Some(place) = of_key.or_else(oldest) {
            set[place] = Slot { key, committed: Some(committed), confirmed_at: seconds(now) };
        }
    }
}

fn set(key: Fingerprint) -> usize {
    // The remainder is below SETS, so it fits.
    usize::try_from(key.0[0] % SETS as u64).unwrap_or_default()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::item::large_rows::MovedColumn;

    /// Answers as it is told, and records each question.
    struct Script {
        answers: RefCell<Vec<Put>>,
        asked: RefCell<Vec<String>>,
    }

    impl View for Script {
        fn schema(&self) -> Option<Arc<TableSchema>> {
            None
        }

        async fn put(&self, item: ViewItem) -> Put {
            self.asked.borrow_mut().push(format!("{}@{}", item.key, item.committed));
            self.answers.borrow_mut().remove(0)
        }

        fn may_create(&self, item: &ViewItem) -> bool {
            item.creates
        }

        async fn create(&self, items: Vec<ViewItem>) -> Vec<bool> {
            let mut created = Vec::new();
            for item in items {
                created.push(self.put(item).await == Put::Applied);
            }
            created
        }

        async fn clear(&self, superseded: &ViewItem) -> Result<(), String> {
            self.asked.borrow_mut().push(format!("clear {}@{}", superseded.key, superseded.committed));
            Ok(())
        }
    }

    fn commit(nanoseconds: u64) -> CommitTimestamp {
        CommitTimestamp::from_nanoseconds(nanoseconds).unwrap()
    }

    fn item(key: &str, committed: u64) -> ViewItem {
        ViewItem::without_attributes(key.to_owned(), commit(committed))
    }

    fn large(key: &str, committed: u64) -> ViewItem {
        ViewItem {
            moved: vec![MovedColumn { object: "object".to_owned(), json: "1".to_owned() }],
            ..item(key, committed)
        }
    }

    /// Puts items into a view that gives these answers. Returns the outcomes, and the questions that reached the view.
    async fn put(items: Vec<ViewItem>, answers: Vec<Put>) -> (Vec<Put>, Vec<String>) {
        let view = Remembering::new(Script { answers: RefCell::new(answers), asked: RefCell::default() });
        let mut ends = Vec::new();
        for item in items {
            ends.push(view.put(item).await);
        }
        assert!(view.view.answers.borrow().is_empty(), "the view was asked less than expected");
        (ends, view.view.asked.into_inner())
    }

    #[tokio::test]
    async fn a_change_that_the_view_is_known_to_show_or_to_have_passed_is_not_sent_again() {
        let items = vec![item("a", 2), item("a", 2), item("a", 1), item("b", 1), item("a", 3)];
        let (ends, asked) = put(items, vec![Put::Applied, Put::Superseded(Superseded::Told), Put::Applied]).await;
        assert_eq!(
            ends,
            [
                Put::Applied,
                Put::Superseded(Superseded::Remembered),
                Put::Superseded(Superseded::Remembered),
                Put::Superseded(Superseded::Told),
                Put::Applied
            ]
        );
        assert_eq!(asked, ["a@2", "b@1", "a@3"]);
    }

    #[tokio::test]
    async fn a_change_that_lost_is_known_as_well() {
        for lost in [Put::Superseded(Superseded::Told), Put::Superseded(Superseded::Same)] {
            let (ends, asked) =
                put(vec![item("a", 2), item("a", 2), item("a", 3)], vec![lost.clone(), Put::Applied]).await;
            assert_eq!(ends, [lost, Put::Superseded(Superseded::Remembered), Put::Applied]);
            assert_eq!(asked, ["a@2", "a@3"]);
        }
    }

    #[tokio::test]
    async fn a_commit_that_is_not_confirmed_is_not_remembered() {
        for not_confirmed in
            [Put::Refused(String::new()), Put::Retryable(String::new()), Put::Unavailable(String::new())]
        {
            let (ends, asked) = put(vec![item("a", 1), item("a", 1)], vec![not_confirmed.clone(), Put::Applied]).await;
            assert_eq!(ends, [not_confirmed, Put::Applied]);
            assert_eq!(asked, ["a@1", "a@1"]);
        }
    }

    #[tokio::test]
    async fn a_put_without_memory_asks_the_view_and_is_remembered() {
        let answers = vec![Put::Applied, Put::Superseded(Superseded::Told), Put::Refused(String::new()), Put::Applied];
        let view = Remembering::new(Script { answers: RefCell::new(answers), asked: RefCell::default() });
        assert_eq!(
            [view.put(item("a", 1)).await, view.put_without_memory(item("a", 1)).await],
            [Put::Applied, Put::Superseded(Superseded::Told)]
        );
        // An earlier confirmation holds, whatever DynamoDB answers for the item now.
        let refused = view.put_without_memory(item("a", 1)).await;
        assert_eq!(
            [refused, view.put(item("a", 1)).await],
            [Put::Refused(String::new()), Put::Superseded(Superseded::Remembered)]
        );
        assert_eq!(
            [view.put_without_memory(item("a", 2)).await, view.put(item("a", 2)).await],
            [Put::Applied, Put::Superseded(Superseded::Remembered)]
        );
        assert_eq!(view.view.asked.into_inner(), ["a@1", "a@1", "a@1", "a@2"]);
    }

    #[tokio::test]
    async fn a_change_with_moved_columns_goes_all_its_way_whatever_is_known() {
        let items = vec![large("a", 2), large("a", 2), large("a", 1), item("a", 1)];
        let (ends, asked) =
            put(items, vec![Put::Applied, Put::Superseded(Superseded::Told), Put::Superseded(Superseded::Told)]).await;
        assert_eq!(
            ends,
            [
                Put::Applied,
                Put::Superseded(Superseded::Told),
                Put::Superseded(Superseded::Told),
                Put::Superseded(Superseded::Remembered)
            ]
        );
        assert_eq!(asked, ["a@2", "a@2", "a@1"]);
    }

    #[tokio::test]
    async fn a_clear_reaches_the_view() {
        let view = Remembering::new(Script { answers: RefCell::default(), asked: RefCell::default() });
        view.clear(&large("a", 1)).await.unwrap();
        assert_eq!(view.view.asked.into_inner(), ["clear a@1"]);
    }

    #[tokio::test]
    async fn created_items_are_known_and_known_items_are_not_created() {
        let answers = RefCell::new(vec![Put::Applied, Put::Superseded(Superseded::Told), Put::Applied]);
        let view = Remembering::new(Script { answers, asked: RefCell::default() });
        let create = |key: &str, committed: u64| ViewItem { creates: true, ..item(key, committed) };
        assert!(view.may_create(&create("a", 1)) && !view.may_create(&item("a", 1)));
        assert_eq!(view.create(vec![create("a", 1), create("b", 1)]).await, [true, false]);
        // Only the confirmed create is known; nothing is known of b.
        assert!(!view.may_create(&create("a", 1)) && !view.may_create(&create("a", 2)));
        assert!(view.may_create(&create("b", 1)));
        assert_eq!(
            [view.put(item("a", 1)).await, view.put(item("b", 1)).await],
            [Put::Superseded(Superseded::Remembered), Put::Applied]
        );
        assert_eq!(view.view.asked.into_inner(), ["a@1", "b@1", "b@1"]);
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn a_confirmed_commit_is_forgotten_after_its_time_and_when_the_clock_was_set_back() {
        let mut known = KnownCommits::new();
        let key = known.fingerprint(&"a".into());
        assert_eq!(known.get(key, at(0)), None);
        known.insert(key, commit(5), at(10));
        for (now, expected) in [(9, None), (10, Some(commit(5))), (309, Some(commit(5))), (310, None)] {
            assert_eq!(known.get(key, at(now)), expected, "{now}");
        }
        // A newer commit counts from its own confirmation; an older one changes nothing.
        known.insert(key, commit(6), at(100));
        known.insert(key, commit(5), at(200));
        for (now, expected) in [(200, Some(commit(6))), (399, Some(commit(6))), (400, None)] {
            assert_eq!(known.get(key, at(now)), expected, "{now}");
        }
        // Once the memory does not rely on the newer one any more, the older one is the confirmed commit.
        known.insert(key, commit(5), at(400));
        assert_eq!(known.get(key, at(400)), Some(commit(5)));
    }

    #[test]
    fn without_room_the_commit_that_was_confirmed_longest_ago_goes() {
        let mut known = KnownCommits::new();
        let of_one_set = |number: u64| Fingerprint([7 * SETS as u64 + 3, number]);
        for number in 1..=4 {
            known.insert(of_one_set(number), commit(number), at(number));
        }
        known.insert(of_one_set(1), commit(10), at(5));
        known.insert(of_one_set(5), commit(5), at(6));
        let found = (1..=5).map(|number| known.get(of_one_set(number), at(6)));
        let expected = [Some(10), None, Some(3), Some(4), Some(5)].map(|known| known.map(commit));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_dozen_full_payloads_are_remembered_in_a_fixed_size() {
        let mut known = KnownCommits::new();
        let keys: Vec<Fingerprint> =
            (0..40_000).map(|number| known.fingerprint(&format!("public.users#{number}").into())).collect();
        for key in &keys {
            known.insert(*key, commit(1), at(0));
        }
        let remembered = keys.iter().filter(|key| known.get(**key, at(0)).is_some()).count();
        // A set has four places and, on average, two or three keys, so few keys find no room.
        assert!(remembered > 36_000, "{remembered} of 40,000");
        assert!(known.fingerprint(&"public.users#1".into()) != known.fingerprint(&"public.users#2".into()));
        let bytes = size_of_val(&*known.places);
        assert!(bytes < 2_200_000, "{bytes} bytes");
    }
}

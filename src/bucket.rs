//! A bucket, as the rest of the function sees it: the place for data that cannot go straight into the view.
//!
//! | prefix | holds | module |
//! |---|---|---|
//! | `quarantine/` | poison records | [`crate::quarantine`] |
//! | `overflow/` | columns of rows over DynamoDB's 400 KB | [`crate::item::large_rows`] |
//! | `fragments/` | main records and fragments of changes over 9 MiB | [`crate::record::fragments`] |
//!
//! Invariants: an object counts as written only if the bucket confirmed it; text from outside enters a key only as
//! [`segment`] or [`table_folder`] writes it, so that no object leaves its prefix.

use std::future::Future;
use std::time::SystemTime;

use futures_util::stream::{self, Stream, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::service_error::ServiceError;
use crate::hash::hash;

pub mod s3;

/// A place for objects. It is a trait, so that the rest knows nothing of S3.
pub trait Objects {
    /// The bucket's name.
    fn bucket(&self) -> &str;

    /// Puts an object, in place of any other object at its key.
    ///
    /// # Errors
    /// It is not certain that the object is there. The error holds nothing of its contents.
    fn put(&self, key: &str, body: Vec<u8>) -> impl Future<Output = Result<(), ServiceError>>;

    /// The object at a key, or `None` if there is none.
    ///
    /// # Errors
    /// The bucket did not say.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, ServiceError>>;

    /// A page of the objects whose keys begin with `prefix` and come after `after`, in the order of their keys. The
    /// listing has all objects that were put before the call.
    ///
    /// # Errors
    /// The bucket did not say.
    fn list(&self, prefix: &str, after: Option<&str>) -> impl Future<Output = Result<Page, ServiceError>>;

    /// Marks an object to which nothing refers any more. It is removed a day later, not at once, because a reader may
    /// be on its way to it. An object that is not there counts as marked.
    ///
    /// # Errors
    /// It is not certain that the object is marked.
    fn retire(&self, key: &str) -> impl Future<Output = Result<(), ServiceError>>;

    /// Whether an object is marked by [`Objects::retire`], or not there at all.
    ///
    /// # Errors
    /// The bucket did not say.
    fn is_retired(&self, key: &str) -> impl Future<Output = Result<bool, ServiceError>>;

    /// Removes an object.
    ///
    /// # Errors
    /// The object may still be there.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), ServiceError>>;
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<StoredObject>,
    /// Whether more objects follow.
    pub more: bool,
}

/// An object, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written.
    pub written_at: SystemTime,
}

/// The pages of all objects whose keys begin with `prefix`, one after the other.
pub fn pages<O: Objects>(objects: &O, prefix: &str) -> impl Stream<Item = Result<Vec<StoredObject>, ServiceError>> {
    stream::try_unfold((true, None), move |(more, after): (bool, Option<String>)| async move {
        if !more {
            return Ok::<_, ServiceError>(None);
        }
        let page = objects.list(prefix, after.as_deref()).await?;
        let last = page.objects.last().map(|object| object.key.clone()).or(after);
        Ok(Some((page.objects, (page.more, last))))
    })
}

/// All objects whose keys begin with `prefix`, for prefixes that hold few objects.
///
/// # Errors
/// The bucket did not say.
pub async fn list_all<O: Objects>(objects: &O, prefix: &str) -> Result<Vec<StoredObject>, ServiceError> {
    pages(objects, prefix).try_concat().await
}

/// The name of the bucket in errors: that of its setting.
pub const OBJECTS_BUCKET: &str = "OBJECTS_BUCKET";

/// The error of a record that cannot be written as JSON. No such record is known.
pub(crate) fn not_json(_: serde_json::Error) -> ServiceError {
    ServiceError { service: OBJECTS_BUCKET, action: "take an object", reason: "it is no JSON".to_owned() }
}

/// The most objects that are on their way to or from the bucket at a time. Each can have megabytes.
pub(crate) const MOST_OBJECTS_IN_FLIGHT: usize = 8;

/// The most bytes of a segment. S3 takes keys of up to 1,024 bytes, so this leaves room for the other segments.
const LONGEST_SEGMENT: usize = 200;
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A text as one segment of a key. Letters, digits, `-` and `_` stay as they are, and all else is percent-encoded. A
/// long text becomes its hash. No two texts share a segment, and no text can leave its folder.
pub fn segment(text: &str) -> String {
    let encoded = utf8_percent_encode(text, &PLAIN).to_string();
    // No encoded text begins with `%h`.
    if encoded.len() <= LONGEST_SEGMENT { encoded } else { format!("%hash-{}", hash(text.as_bytes())) }
}

/// A table's folder. `key_prefix` is the text with which the view keys of its rows begin, and has `%` escaped already.
/// The folder holds no character that would leave it, or that a JSON string would have to escape.
pub fn table_folder(key_prefix: &str) -> String {
    let is_encoded = |next: char| matches!(next, '/' | '"' | '\\') || next.is_control();
    let mut folder = String::with_capacity(key_prefix.len());
    let mut rest = key_prefix;
    while let Some(at) = rest.find(is_encoded) {
        let (plain, from) = rest.split_at(at);
        let (next, behind) = from.split_at(from.chars().next().map_or(0, char::len_utf8));
        folder.push_str(plain);
        folder.extend(utf8_percent_encode(next, NON_ALPHANUMERIC));
        rest = behind;
    }
    folder + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket of these keys, which lists two at a time.
    struct Keys(&'static [&'static str]);

    impl Objects for Keys {
        fn bucket(&self) -> &str {
            unreachable!("a listing is all that is asked for")
        }

        async fn put(&self, _: &str, _: Vec<u8>) -> Result<(), ServiceError> {
            unreachable!("a listing is all that is asked for")
        }

        async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ServiceError> {
            unreachable!("a listing is all that is asked for")
        }

        async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, ServiceError> {
            let mut keys = self.0.iter().filter(|key| key.starts_with(prefix) && Some(**key) > after);
            let stored =
                |key: &&str| StoredObject { key: (*key).to_owned(), size: 1, written_at: SystemTime::UNIX_EPOCH };
            let objects = keys.by_ref().take(2).map(stored).collect();
            Ok(Page { objects, more: keys.next().is_some() })
        }

        async fn retire(&self, _: &str) -> Result<(), ServiceError> {
            unreachable!("a listing is all that is asked for")
        }

        async fn is_retired(&self, _: &str) -> Result<bool, ServiceError> {
            unreachable!("a listing is all that is asked for")
        }

        async fn delete(&self, _: &str) -> Result<(), ServiceError> {
            unreachable!("a listing is all that is asked for")
        }
    }

    #[tokio::test]
    async fn a_listing_goes_on_until_no_more_objects_follow() {
        let bucket = Keys(&["a/1", "a/2", "a/3", "a/4", "a/5", "b/1"]);
        for (prefix, expected) in [("a/", &["a/1", "a/2", "a/3", "a/4", "a/5"][..]), ("b/", &["b/1"]), ("c/", &[])] {
            let found: Vec<String> =
                list_all(&bucket, prefix).await.unwrap().into_iter().map(|object| object.key).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn nothing_from_outside_leaves_its_folder() {
        for (text, expected) in [
            ("shardId-000000000006", "shardId-000000000006"),
            ("../../x", "%2E%2E%2F%2E%2E%2Fx"),
            ("a b%2F", "a%20b%252F"),
            ("grün", "gr%C3%BCn"),
            ("", ""),
        ] {
            assert_eq!(segment(text), expected);
        }
        let long = segment(&"/".repeat(1000));
        assert!(long.len() < LONGEST_SEGMENT && long.starts_with("%hash-") && !long.contains('/'), "{long}");
        assert_ne!(long, segment(&"/".repeat(1001)));
    }

    #[test]
    fn a_table_s_folder_is_its_name_with_unsafe_characters_escaped() {
        for (prefix, folder) in [
            ("public.users", "public.users"),
            ("Sales.Order Lines", "Sales.Order Lines"),
            ("a/b.%2E%2E", "a%2Fb.%2E%2E"),
            ("grün.\"q\"\\\n", "grün.%22q%22%5C%0A"),
        ] {
            assert_eq!(table_folder(prefix), folder);
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        assert_eq!(hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

//! The function's settings: read once from the environment, checked together, typed from then on.
//!
//! Invariants: nothing else in the library reads these settings from the environment; [`VARIABLES`] names every
//! variable that is read here; one message names everything that is wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::definitions::collisions::collisions;
use crate::definitions::file::{self, Definitions};
use crate::definitions::marks::Marks;
use crate::definitions::source_tables::{SourceTable, SourceTables, SourceTablesError};
use crate::hash::hash;
use crate::record::order::TimestampPlace;

/// The variables that the function reads for itself. The AWS SDK, the Lambda runtime and [`crate::observe::logs`] read
/// their own.
pub const VARIABLES: [&str; 13] = [
    VIEW_TABLE,
    VIEW_TABLES,
    SOURCE_TABLES,
    VIEW_DEFINITIONS,
    VIEW_HASH_SECRET,
    COMMIT_TIMESTAMP,
    SOURCE_CLUSTER,
    TOMBSTONE_TTL,
    STREAM_RETENTION,
    WRITE_CONCURRENCY,
    BATCHED_CREATES,
    OBJECTS_BUCKET,
    TABLE_METRICS,
];

const VIEW_TABLE: &str = "VIEW_TABLE";
const VIEW_TABLES: &str = "VIEW_TABLES";
const SOURCE_TABLES: &str = "SOURCE_TABLES";
const VIEW_DEFINITIONS: &str = "VIEW_DEFINITIONS";
const VIEW_HASH_SECRET: &str = "VIEW_HASH_SECRET";
const COMMIT_TIMESTAMP: &str = "COMMIT_TIMESTAMP";
const SOURCE_CLUSTER: &str = "SOURCE_CLUSTER";
const TOMBSTONE_TTL: &str = "TOMBSTONE_TTL";
const STREAM_RETENTION: &str = "STREAM_RETENTION";
const WRITE_CONCURRENCY: &str = "WRITE_CONCURRENCY";
const BATCHED_CREATES: &str = "BATCHED_CREATES";
const OBJECTS_BUCKET: &str = "OBJECTS_BUCKET";
const TABLE_METRICS: &str = "TABLE_METRICS";

/// Longer than any stream keeps its records (365 days). A longer time is more likely a typing error than a wish.
const LONGEST_TOMBSTONE_TTL: Duration = Duration::from_hours(100 * 365 * 24);
const DEFAULT_TOMBSTONE_TTL: Duration = Duration::from_hours(14 * 24);
const DEFAULT_WRITE_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const MOST_WRITES_IN_FLIGHT: usize = 1024;

/// A Kinesis stream keeps its records for 24 hours to 365 days.
pub const SHORTEST_STREAM_RETENTION: Duration = Duration::from_hours(24);
const LONGEST_STREAM_RETENTION: Duration = Duration::from_hours(365 * 24);

/// How long Aurora DSQL may hold a record back: an IMPAIRED change stream tries for a week to deliver it.
const HELD_BACK_BY_THE_SERVICE: Duration = Duration::from_hours(7 * 24);

/// How long redrive tries a message of the on-failure queue, with the attempts that `template.yaml` sets.
const REDRIVE: Duration = Duration::from_hours(8);

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `VIEW_TABLE` and `VIEW_TABLES`: the DynamoDB tables that hold the view, each once. Each source table knows its
    /// place among them.
    pub view_tables: Vec<ViewTable>,
    /// `SOURCE_TABLES`, or the definitions file: the tables that the view keeps, with their primary keys and the shapes
    /// of their items.
    pub source_tables: SourceTables,
    /// The names of the view's own attributes, from the definitions file.
    pub marks: Arc<Marks>,
    /// The definitions file, if there is one: its path and its SHA-256.
    pub definitions: Option<(String, String)>,
    /// `VIEW_HASH_SECRET`: the secret in Secrets Manager for columns that are hashed, if any are.
    pub hash_secret: Option<String>,
    /// `COMMIT_TIMESTAMP`: where a record carries the time of its commit.
    pub commit_timestamp: TimestampPlace,
    /// `SOURCE_CLUSTER`: the cluster whose records are taken. If it is not set, records of all clusters are taken.
    pub source_cluster: Option<String>,
    /// `TOMBSTONE_TTL`: how long a tombstone is kept after it was written; whole seconds, at least one.
    pub tombstone_ttl: Duration,
    /// `STREAM_RETENTION`: how long the stream keeps its records: 24 hours to 365 days.
    pub stream_retention: Duration,
    /// `WRITE_CONCURRENCY`: the most writes in flight at a time.
    pub write_concurrency: NonZeroUsize,
    /// `BATCHED_CREATES`: whether creates are sent together, many in one request, see [`crate::write::creates`].
    pub batched_creates: bool,
    /// `OBJECTS_BUCKET`: the S3 bucket for data that cannot go straight into the view, if there is one.
    pub objects_bucket: Option<String>,
    /// `TABLE_METRICS`: whether each source table has metrics, beside those of all records.
    pub table_metrics: bool,
    warnings: Vec<String>,
}

/// A DynamoDB table of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewTable {
    /// Its name, or its ARN.
    pub name: String,
    /// The setting that names it.
    pub setting: &'static str,
}

impl Config {
    /// The settings that `variable` gives for the names in [`VARIABLES`]. An empty value counts as not set.
    ///
    /// # Errors
    /// Every setting that is missing or wrong, in one error.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());

        let file = definitions_file(set(VIEW_DEFINITIONS)).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let is_readable = problems.is_empty();
        let definitions = file.as_ref().map(|(path, digest, _)| (path.clone(), digest.clone()));
        let file = file.map(|(_, _, definitions)| definitions);
        let (mut source_tables, marks, mut warnings) =
            tables(set(SOURCE_TABLES), file, is_readable).unwrap_or_else(|problem| {
                problems.push(problem);
                Default::default()
            });
        let (only, mapped) = (set(VIEW_TABLE), set(VIEW_TABLES).unwrap_or_default());
        // A file that cannot be read does not say which view tables there are.
        let mut of_views = Vec::new();
        let (view_tables, unused) = view_tables(only.as_deref(), &mapped, &mut source_tables, &mut of_views);
        problems.extend(of_views.into_iter().filter(|_| is_readable));
        warnings.extend(unused);
        problems.extend(collisions(&source_tables));
        if definitions.is_none() && is_readable {
            // Without the file, the rows would stand in another shape, or with values that the file hides.
            let needs_a_file = [VIEW_TABLES, VIEW_HASH_SECRET].into_iter().filter(|name| set(name).is_some());
            problems.extend(needs_a_file.map(|name| {
                format!(
                    "{name} is set, and there is no definitions file: put {DEFINITIONS_FILE} beside the function's binary, set \
                     {VIEW_DEFINITIONS}, or remove {name}"
                )
            }));
        }
        let hashes = hashes(&source_tables);
        let hash_secret = set(VIEW_HASH_SECRET).filter(|_| hashes);
        if hash_secret.is_none() && hashes {
            problems.push(format!(
                "{VIEW_HASH_SECRET} is not set, and the definitions hash columns: give the ARN or the name of a secret in Secrets Manager"
            ));
        }
        let mut optional = Optional { set, problems };
        let config = Self {
            view_tables,
            source_tables,
            marks: Arc::new(marks),
            definitions,
            hash_secret,
            warnings,
            commit_timestamp: optional.or_default(COMMIT_TIMESTAMP, TimestampPlace::default(), timestamp_place),
            source_cluster: optional.or_default(SOURCE_CLUSTER, None, source_cluster),
            tombstone_ttl: optional.or_default(TOMBSTONE_TTL, DEFAULT_TOMBSTONE_TTL, tombstone_ttl),
            stream_retention: optional.or_default(STREAM_RETENTION, SHORTEST_STREAM_RETENTION, stream_retention),
            write_concurrency: optional.or_default(WRITE_CONCURRENCY, DEFAULT_WRITE_CONCURRENCY, write_concurrency),
            batched_creates: optional.or_default(BATCHED_CREATES, false, yes_or_no),
            objects_bucket: optional.or_default(OBJECTS_BUCKET, None, objects_bucket),
            table_metrics: optional.or_default(TABLE_METRICS, true, yes_or_no),
        };
        if optional.problems.is_empty() { Ok(config) } else { Err(ConfigError { problems: optional.problems }) }
    }

    /// Warnings about settings that are allowed but unwise, for the log at start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        let latest = HELD_BACK_BY_THE_SERVICE + self.stream_retention + REDRIVE;
        if self.tombstone_ttl < latest {
            warnings.push(format!(
                "{TOMBSTONE_TTL} is {}, and a change can come {} after its commit: Aurora DSQL may hold it back for 7 days, the stream \
                 keeps it for {} ({STREAM_RETENTION}), and redrive tries for 8 hours. A change that comes after its row's tombstone has \
                 expired brings the row back. Set {TOMBSTONE_TTL} to that sum or more",
                humantime::format_duration(self.tombstone_ttl),
                humantime::format_duration(latest),
                humantime::format_duration(self.stream_retention),
            ));
        }
        warnings
    }
}

/// The name of the definitions file beside the functions' binaries.
const DEFINITIONS_FILE: &str = "views.toml";

/// Reads the definitions file: its path, its SHA-256, and its contents. `None` if no file is set, and there is none
/// beside the binary.
fn definitions_file(set: Option<String>) -> Result<Option<(String, String, Definitions)>, String> {
    let is_set = set.is_some();
    let path = match (set, beside_the_binary()) {
        (Some(path), Some(folder)) => folder.join(path),
        (Some(path), None) => PathBuf::from(path),
        (None, Some(folder)) => folder.join(DEFINITIONS_FILE),
        (None, None) => return Ok(None),
    };
    let shown = path.display().to_string();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if !is_set && error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(format!(
                "{VIEW_DEFINITIONS}: {shown} cannot be read: {error}; a relative path begins at the folder of the function's binary \
                 (LAMBDA_TASK_ROOT)"
            ));
        }
    };
    let name = path.file_name().map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
    let definitions = file::read(&name, &bytes).map_err(|faults| faults.to_string())?;
    Ok(Some((shown, hash(&bytes), definitions)))
}

/// The folder of the function's package.
fn beside_the_binary() -> Option<PathBuf> {
    let task_root = std::env::var_os("LAMBDA_TASK_ROOT").map(PathBuf::from);
    task_root.or_else(|| std::env::current_exe().ok()?.parent().map(Path::to_owned))
}

/// The tables of the definitions file or of `SOURCE_TABLES`, with the marks and the file's warnings. If both are there,
/// they must name the same tables and keys.
fn tables(
    short: Option<String>,
    file: Option<Definitions>,
    is_readable: bool,
) -> Result<(SourceTables, Marks, Vec<String>), String> {
    let short: Option<SourceTables> = match short {
        Some(text) => Some(text.parse().map_err(|error: SourceTablesError| format!("{SOURCE_TABLES}: {error}"))?),
        None => None,
    };
    match (short, file) {
        (None, Some(Definitions { tables, marks, warnings })) => Ok((tables, marks, warnings)),
        (Some(short), None) => Ok((short, Marks::default(), Vec::new())),
        (Some(short), Some(Definitions { tables, marks, warnings })) => {
            let differences = tables.differences(&short);
            if differences.is_empty() {
                return Ok((tables, marks, warnings));
            }
            Err(format!(
                "{SOURCE_TABLES} and the definitions file disagree: {}; make them name the same tables and keys, or remove {SOURCE_TABLES}",
                differences.join(", ")
            ))
        }
        // The problem of the file is told already.
        (None, None) if !is_readable => Ok(Default::default()),
        (None, None) => Err(format!(
            "{SOURCE_TABLES} is not set: list the tables with their primary keys, for example: \
             public.users(id), public.order_items(order_id, item_id); or put a definitions file, {DEFINITIONS_FILE}, beside the function's \
             binary"
        )),
    }
}

/// Whether any column is hashed.
fn hashes(tables: &SourceTables) -> bool {
    tables.iter().filter_map(|table| table.shape()).any(|shape| shape.columns.iter().any(|column| column.hashed))
}

/// The DynamoDB tables of the view, each once, and a warning for each name in `VIEW_TABLES` that no source table uses.
/// Puts each source table into its view table.
fn view_tables(
    only: Option<&str>,
    mapped: &str,
    tables: &mut SourceTables,
    problems: &mut Vec<String>,
) -> (Vec<ViewTable>, Vec<String>) {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for pair in mapped.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty()) {
        let (logical, name) =
            pair.split_once('=').map_or((pair, pair), |(logical, name)| (logical.trim(), name.trim()));
        if logical.is_empty() || name.is_empty() {
            problems.push(format!("{VIEW_TABLES}: expected pairs such as orders=my-orders-table, found {pair:?}"));
        } else if names.insert(logical.to_owned(), name.to_owned()).is_some() {
            problems.push(format!("{VIEW_TABLES} names {logical} twice: remove one of the two"));
        }
    }
    let used: BTreeSet<Option<&str>> = tables.iter().map(SourceTable::view).collect();
    let used: BTreeSet<Option<String>> = used.into_iter().map(|view| view.map(str::to_owned)).collect();
    let unused = names.keys().filter(|logical| !used.contains(&Some((*logical).clone())));
    let unused = unused.map(|logical| format!("{VIEW_TABLES} names {logical}, which no table of the definitions uses"));
    let unused = unused.collect();

    let mut found: Vec<ViewTable> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut place_of_only = None;
    // Without any source table, the problem is another one, and VIEW_TABLE is still asked for.
    let used = if used.is_empty() { [None].into() } else { used };
    for logical in used {
        let table = match &logical {
            None => only.map(|name| ViewTable { name: name.to_owned(), setting: VIEW_TABLE }),
            Some(logical) => {
                let name = names.get(logical).unwrap_or(logical).clone();
                Some(ViewTable { name, setting: VIEW_TABLES })
            }
        };
        let Some(table) = table else {
            problems.push(format!("{VIEW_TABLE} is not set: give the name of the DynamoDB table that holds the view"));
            continue;
        };
        let place = found.iter().position(|known| known.name == table.name).unwrap_or_else(|| {
            found.push(table);
            found.len() - 1
        });
        match logical {
            Some(logical) => drop(places.insert(logical, place)),
            None => place_of_only = Some(place),
        }
    }
    let place = |view: Option<&str>| view.map_or(place_of_only, |view| places.get(view).copied());
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    for (place, table) in found.iter().enumerate() {
        let is_same = |other: &&ViewTable| {
            let are_arns = [&table.name, &other.name].iter().all(|name| name.starts_with("arn:"));
            !are_arns && last(&other.name) == last(&table.name)
        };
        if let Some(other) = found[..place].iter().find(is_same) {
            problems.push(format!(
                "{VIEW_TABLES}: {} and {} may be one table: write its name in one way",
                other.name, table.name
            ));
        }
    }
    tables.place_views(|view| place(view).unwrap_or(usize::MAX));
    (found, unused)
}

/// Reads the settings that have a default, and collects their problems.
struct Optional<F> {
    set: F,
    problems: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Optional<F> {
    fn or_default<T>(&mut self, name: &str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let Some(text) = (self.set)(name) else { return default };
        parse(&text).unwrap_or_else(|expected| {
            self.problems.push(format!("{name} is {text:?}: expected {expected}"));
            default
        })
    }
}

fn timestamp_place(text: &str) -> Result<TimestampPlace, String> {
    match text {
        "auto" => Ok(TimestampPlace::Auto),
        "earliest" => Ok(TimestampPlace::Earliest),
        "source" => Ok(TimestampPlace::Source),
        "root" => Ok(TimestampPlace::Root),
        _ => Err("auto, earliest, source or root".to_owned()),
    }
}

fn tombstone_ttl(text: &str) -> Result<Duration, String> {
    let expected = || "a length of time from 1s to 36500d with its unit, for example 14d or 36h".to_owned();
    let length = humantime::parse_duration(text).map_err(|_| expected())?;
    let whole_seconds = Duration::from_secs(length.as_secs());
    if whole_seconds.is_zero() || whole_seconds > LONGEST_TOMBSTONE_TTL {
        return Err(expected());
    }
    Ok(whole_seconds)
}

fn stream_retention(text: &str) -> Result<Duration, String> {
    let possible = SHORTEST_STREAM_RETENTION..=LONGEST_STREAM_RETENTION;
    let length = humantime::parse_duration(text).ok().filter(|length| possible.contains(length));
    length.ok_or_else(|| "a length of time from 24h to 365d with its unit, for example 24h or 7d".to_owned())
}

fn write_concurrency(text: &str) -> Result<NonZeroUsize, String> {
    let writes = text.parse().ok().filter(|writes: &NonZeroUsize| writes.get() <= MOST_WRITES_IN_FLIGHT);
    writes.ok_or_else(|| format!("a whole number from 1 to {MOST_WRITES_IN_FLIGHT}"))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false".to_owned())
}

/// A change stream's records name their cluster by its identifier alone.
fn source_cluster(text: &str) -> Result<Option<String>, String> {
    let plain = |next: char| next.is_ascii_lowercase() || next.is_ascii_digit() || next == '-' || next == '_';
    if text.chars().all(plain) {
        Ok(Some(text.to_owned()))
    } else {
        Err("the identifier of an Aurora DSQL cluster as its records have it: lower-case letters, digits, - and _ (no ARN, no endpoint)".to_owned())
    }
}

fn objects_bucket(text: &str) -> Result<Option<String>, String> {
    let plain = |next: char| next.is_ascii_lowercase() || next.is_ascii_digit() || next == '.' || next == '-';
    // The ARN of an access point is refused, because readers follow addresses that begin with the bucket's name.
    if (3..=63).contains(&text.len()) && text.chars().all(plain) {
        Ok(Some(text.to_owned()))
    } else {
        Err("the name of an S3 bucket (3 to 63 lower-case letters, digits, dots and hyphens; no s3://, no path, no ARN)".to_owned())
    }
}

/// Every setting that is missing or wrong; its text names them all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {} missing or wrong: {}", .problems.len(), settings_are(.problems), .problems.join("; "))]
pub struct ConfigError {
    problems: Vec<String>,
}

fn settings_are(problems: &[String]) -> &'static str {
    if problems.len() == 1 { "setting is" } else { "settings are" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, String> {
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::from_variables(lookup).map_err(|error| error.to_string())
    }

    const REQUIRED: [(&str, &str); 2] = [("VIEW_TABLE", "view"), ("SOURCE_TABLES", "users(id)")];

    #[test]
    fn a_setting_that_is_not_set_has_its_documented_default() {
        let config = config(&REQUIRED).unwrap();
        assert_eq!(config.view_tables, [ViewTable { name: "view".to_owned(), setting: "VIEW_TABLE" }]);
        assert_eq!(config.commit_timestamp, TimestampPlace::Auto);
        assert_eq!(config.source_cluster, None);
        assert_eq!(config.stream_retention, Duration::from_secs(86_400));
        assert_eq!(config.tombstone_ttl, Duration::from_secs(14 * 86_400));
        assert_eq!(config.write_concurrency.get(), 64);
        assert!(!config.batched_creates);
        assert_eq!(config.objects_bucket, None);
        assert!(config.table_metrics);
    }

    #[test]
    fn the_list_names_exactly_the_variables_that_are_read() {
        let read = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let lookup = |name: &str| {
            read.borrow_mut().insert(name.to_owned());
            None
        };
        assert!(Config::from_variables(lookup).is_err());
        assert_eq!(read.into_inner(), VARIABLES.map(str::to_owned).into());
    }

    #[test]
    fn every_problem_is_named_in_one_message() {
        let message = config(&[
            ("VIEW_TABLE", "  "),
            ("COMMIT_TIMESTAMP", "latest"),
            ("SOURCE_CLUSTER", "arn:aws:dsql:us-east-1:123456789012:cluster/kmabugltfmjdaj2siqr2qbxgju"),
            ("TOMBSTONE_TTL", "14"),
            ("STREAM_RETENTION", "1h"),
            ("WRITE_CONCURRENCY", "0"),
            ("BATCHED_CREATES", "yes"),
            ("TABLE_METRICS", "off"),
        ])
        .unwrap_err();
        assert!(message.starts_with("9 settings are missing or wrong: "), "{message}");
        for variable in VARIABLES.into_iter().filter(|variable| {
            !["OBJECTS_BUCKET", "VIEW_TABLES", "VIEW_DEFINITIONS", "VIEW_HASH_SECRET"].contains(variable)
        }) {
            assert!(message.contains(variable), "{variable} is not named in: {message}");
        }
    }

    #[test]
    fn each_value_is_read_as_documented() {
        let with = |name, value| config(&[REQUIRED[0], REQUIRED[1], (name, value)]);
        for (value, place) in [
            ("auto", TimestampPlace::Auto),
            ("earliest", TimestampPlace::Earliest),
            ("source", TimestampPlace::Source),
            ("root", TimestampPlace::Root),
        ] {
            assert_eq!(with("COMMIT_TIMESTAMP", value).unwrap().commit_timestamp, place);
        }
        for (value, seconds) in [("14d", 1_209_600), ("36h", 129_600), ("1s", 1), ("36500d", 3_153_600_000)] {
            assert_eq!(with("TOMBSTONE_TTL", value).unwrap().tombstone_ttl.as_secs(), seconds);
        }
        let cluster = "kmabugltfmjdaj2siqr2qbxgju";
        assert_eq!(with("SOURCE_CLUSTER", cluster).unwrap().source_cluster.as_deref(), Some(cluster));
        for (value, hours) in [("24h", 24), ("7d", 168), ("8760h", 8760)] {
            assert_eq!(with("STREAM_RETENTION", value).unwrap().stream_retention, Duration::from_hours(hours));
        }
        for (value, writes) in [("1", 1), ("1024", 1024)] {
            assert_eq!(with("WRITE_CONCURRENCY", value).unwrap().write_concurrency.get(), writes);
        }
        for (value, expected) in [("true", true), ("false", false)] {
            assert_eq!(with("BATCHED_CREATES", value).unwrap().batched_creates, expected);
            assert_eq!(with("TABLE_METRICS", value).unwrap().table_metrics, expected);
        }
        for bucket in ["abc", "my-objects.7", &"b".repeat(63)] {
            assert_eq!(with("OBJECTS_BUCKET", bucket).unwrap().objects_bucket.as_deref(), Some(bucket));
        }
    }

    #[test]
    fn a_value_out_of_its_range_is_refused_with_what_was_expected() {
        for (name, value, expected) in [
            ("TOMBSTONE_TTL", "0s", "from 1s to 36500d"),
            ("TOMBSTONE_TTL", "999ms", "from 1s to 36500d"),
            ("TOMBSTONE_TTL", "36501d", "from 1s to 36500d"),
            ("TOMBSTONE_TTL", "-1d", "from 1s to 36500d"),
            ("WRITE_CONCURRENCY", "1025", "from 1 to 1024"),
            ("WRITE_CONCURRENCY", "many", "from 1 to 1024"),
            ("BATCHED_CREATES", "TRUE", "true or false"),
            ("TABLE_METRICS", "0", "true or false"),
            ("COMMIT_TIMESTAMP", "Source", "auto, earliest, source or root"),
            ("SOURCE_CLUSTER", "https://kmabugltfmjdaj2siqr2qbxgju.dsql.us-east-1.on.aws", "no endpoint"),
            ("STREAM_RETENTION", "23h", "from 24h to 365d"),
            ("STREAM_RETENTION", "366d", "from 24h to 365d"),
            ("SOURCE_TABLES", "users", "users"),
            ("OBJECTS_BUCKET", "s3://my-objects", "the name of an S3 bucket"),
            ("OBJECTS_BUCKET", "my-objects/prefix", "the name of an S3 bucket"),
            ("OBJECTS_BUCKET", "My-objects", "the name of an S3 bucket"),
            ("OBJECTS_BUCKET", "ab", "the name of an S3 bucket"),
            ("OBJECTS_BUCKET", "arn:aws:s3:us-east-1:123456789012:accesspoint/x", "the name of an S3 bucket"),
        ] {
            let mut variables: Vec<_> = REQUIRED.into_iter().filter(|(key, _)| *key != name).collect();
            variables.push((name, value));
            let message = config(&variables).unwrap_err();
            assert!(message.contains(name) && message.contains(expected), "{name}={value}: {message}");
        }
    }

    #[test]
    fn keys_that_could_meet_are_named_along_with_the_other_problems() {
        let path = std::env::temp_dir().join(format!("dsql-view-{}-meet.toml", std::process::id()));
        let table =
            |name: &str| format!("[[table]]\nname = {name:?}\nprimary_key = [\"id\"]\nkey = {{ pk = \"X#{{id}}\" }}\n");
        std::fs::write(&path, format!("version = 1\n{}{}", table("users"), table("orders"))).unwrap();
        let message = config(&[("VIEW_DEFINITIONS", path.to_str().unwrap()), ("TOMBSTONE_TTL", "14")]).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        for expected in ["VIEW_TABLE is not set", "public.orders and of public.users could meet", "TOMBSTONE_TTL is"] {
            assert!(message.contains(expected), "{expected:?} is not in {message}");
        }
    }

    /// The settings of a file with these tables, each with its view if that is not empty.
    fn of_file(name: &str, tables: &[(&str, &str)], more: &[(&str, &str)]) -> Result<Config, String> {
        let path = std::env::temp_dir().join(format!("dsql-view-{}-{name}.toml", std::process::id()));
        let tables = tables.iter().map(|(table, view)| {
            let view = if view.is_empty() { String::new() } else { format!("view = {view:?}\n") };
            format!("[[table]]\nname = {table:?}\nprimary_key = [\"id\"]\n{view}")
        });
        std::fs::write(&path, format!("version = 1\n{}", tables.collect::<String>())).unwrap();
        let path_text = path.to_str().unwrap().to_owned();
        let config = config(&[&[("VIEW_DEFINITIONS", path_text.as_str())], more].concat());
        std::fs::remove_file(&path).unwrap();
        config
    }

    #[test]
    fn each_table_of_a_file_stands_in_the_view_table_of_its_logical_name() {
        let tables = [("users", ""), ("orders", "orders"), ("items", "items"), ("notes", "other")];
        let mapped = [("VIEW_TABLE", "view"), ("VIEW_TABLES", " orders = o-1,\nother=view , unused=u")];
        let config = of_file("places", &tables, &mapped).unwrap();
        let names: Vec<_> = config.view_tables.iter().map(|table| (table.name.as_str(), table.setting)).collect();
        assert_eq!(names, [("view", "VIEW_TABLE"), ("items", "VIEW_TABLES"), ("o-1", "VIEW_TABLES")]);
        for (table, view) in [("users", "view"), ("orders", "o-1"), ("items", "items"), ("notes", "view")] {
            let place = config.source_tables.get("public", table).unwrap().view_place();
            assert_eq!(config.view_tables[place].name, view, "{table}");
        }
        assert!(config.warnings().iter().any(|warning| warning.contains("VIEW_TABLES names unused")));
        // Without a table of VIEW_TABLE, that setting is not needed.
        assert_eq!(of_file("one", &tables[1..2], &[]).unwrap().view_tables.len(), 1);
    }

    #[test]
    fn a_file_and_settings_that_do_not_fit_are_named() {
        let [users, orders] = [("users", ""), ("orders", "orders")];
        for (name, tables, more, expected) in [
            ("no_table", &[users][..], &[][..], "VIEW_TABLE is not set"),
            ("twice", &[orders], &[("VIEW_TABLES", "orders=a,orders=b")], "VIEW_TABLES names orders twice"),
            ("pair", &[orders], &[("VIEW_TABLES", "orders=")], "expected pairs such as"),
            ("less", &[orders], &[("SOURCE_TABLES", "orders(id), users(id)")], "the file lacks public.users"),
            ("more", &[orders, users], &[("SOURCE_TABLES", "orders(id)")], "only the file names public.users"),
            (
                "alias",
                &[users, orders],
                &[("VIEW_TABLE", "v"), ("VIEW_TABLES", "orders=arn:aws:dynamodb:r:1:table/v")],
                "may be one table",
            ),
            ("key", &[orders], &[("SOURCE_TABLES", "orders(a, id)")], "is (id) in the file, and (a, id)"),
        ] {
            let message = of_file(name, tables, more).unwrap_err();
            assert!(message.contains(expected), "{name}: {message}");
        }
        for setting in ["VIEW_TABLES", "VIEW_HASH_SECRET"] {
            let message = config(&[REQUIRED[0], REQUIRED[1], (setting, "orders=o")]).unwrap_err();
            assert!(message.contains(&format!("{setting} is set, and there is no definitions file")), "{message}");
        }
        let both = of_file("both", &[orders], &[("SOURCE_TABLES", "public.orders(id)")]).unwrap();
        assert_eq!(both.definitions.unwrap().1.len(), 64);
    }

    #[test]
    fn a_warning_tells_of_tombstones_that_expire_before_the_latest_change_can_come() {
        let warnings = |ttl, retention| {
            let settings = [("TOMBSTONE_TTL", ttl), ("STREAM_RETENTION", retention)];
            config(&[&REQUIRED[..], &settings].concat()).unwrap().warnings()
        };
        // The sum is the week for which the service may hold a record back, the stream's retention, and eight hours of
        // redrive.
        for (ttl, retention, expected) in [
            ("", "", None),
            ("200h", "", None),
            ("199h", "", Some("TOMBSTONE_TTL is 8days 7h, and a change can come 8days 8h after its commit")),
            ("14d", "7d", Some("14days 8h after its commit")),
            ("344h", "7d", None),
            ("14d", "365d", Some("1year 7days")),
        ] {
            let warnings = warnings(ttl, retention);
            assert_eq!(warnings.len(), usize::from(expected.is_some()), "{ttl} {retention}: {warnings:?}");
            if let Some(expected) = expected {
                assert!(warnings[0].contains(expected), "{}", warnings[0]);
            }
        }
    }
}

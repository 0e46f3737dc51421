//! Warnings that are logged once per process, not once per batch: tables that are not configured, a second cluster, a
//! newer envelope, and values that an index does not take.
//!
//! Invariants: the decision is pure (`Told`); a warning names tables, columns, clusters and versions, and never holds a
//! value of a row; the memory is bounded.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::batch::ledger::{Entry, Ledger, Write};
use crate::batch::plan::{MOST_NAMES, Sources};
use crate::definitions::source_tables::{SourceTable, SourceTables, in_sql};
use crate::item::schema::TableSchema;
use crate::lock::lock;

/// A configured table counts as silent after this many batches with records of a near name, but no records of its own.
const SILENT_BATCHES: usize = 10;

/// The warnings of this process.
#[derive(Debug, Default)]
pub struct Notices(Mutex<Told>);

impl Notices {
    /// Warns of everything that a batch shows for the first time. The ledger is that of the batch, once all of it has
    /// ended.
    pub fn tell(
        &self,
        sources: &Sources,
        ledger: &Ledger<'_>,
        tables: &SourceTables,
        views: &[Option<Arc<TableSchema>>],
    ) {
        let entries = ledger.entries();
        let mut told = lock(&self.0);
        told.hear(&entries);
        let mut notices = told.of_sources(sources, tables);
        notices.extend(told.of_silence(sources, &entries));
        notices.extend(told.of_indexes(&entries, views));
        notices.extend(told.of_columns(&entries));
        for notice in notices {
            tracing::warn!("{notice}");
        }
    }
}

/// The warnings given so far, and the names seen.
#[derive(Debug, Default)]
struct Told {
    unconfigured: HashSet<(String, String)>,
    more: bool,
    /// For each table that is not configured, but has a name near a configured one: how many batches had records of the
    /// former but not of the latter, since the latter last had one.
    silent: HashMap<(String, String), Silence>,
    /// The key prefixes of configured tables that have had a record.
    heard: HashSet<String>,
    first_cluster: Option<String>,
    second_cluster: bool,
    versions: HashSet<String>,
    left_out: HashSet<(String, String)>,
    columns: HashSet<(&'static str, String, String)>,
}

/// A configured table, watched while a table of a near name is filtered.
#[derive(Debug)]
struct Silence {
    key_prefix: String,
    name: String,
    batches: usize,
}

impl Told {
    /// Checks whether configured tables have fallen silent while tables of near names are filtered.
    fn of_silence(&mut self, sources: &Sources, entries: &[Entry<'_>]) -> Vec<String> {
        let mut notices = Vec::new();
        for name in &sources.unconfigured {
            let Some(near) = self.silent.get_mut(name) else { continue };
            let is_heard = |entry: &Entry<'_>| entry.table().is_some_and(|table| table.key_prefix() == near.key_prefix);
            near.batches = if entries.iter().any(is_heard) { 0 } else { near.batches + 1 };
            if near.batches == SILENT_BATCHES
                && let Some(near) = self.silent.remove(name)
            {
                notices.push(format!(
                    "records of {} are filtered, and for {SILENT_BATCHES} batches with such records there was none of {}: was the table \
                     renamed, or another one put in its place?",
                    in_sql_of(name),
                    near.name
                ));
            }
        }
        notices
    }

    fn hear(&mut self, entries: &[Entry<'_>]) {
        for table in entries.iter().filter_map(Entry::table) {
            if !self.heard.contains(table.key_prefix()) {
                self.heard.insert(table.key_prefix().to_owned());
            }
        }
    }

    fn of_sources(&mut self, sources: &Sources, tables: &SourceTables) -> Vec<String> {
        let mut notices = Vec::new();
        for name in &sources.unconfigured {
            if self.unconfigured.contains(name) || self.more {
                continue;
            }
            if self.unconfigured.len() >= MOST_NAMES {
                self.more = true;
                notices.push(format!("more than {MOST_NAMES} tables are filtered; no further names are logged"));
                continue;
            }
            self.unconfigured.insert(name.clone());
            let mut notice = format!(
                "records of {} are filtered: neither SOURCE_TABLES nor the definitions name the table",
                in_sql_of(name)
            );
            if let Some(table) = near(name, tables) {
                let (key_prefix, near) = (table.key_prefix().to_owned(), table.in_sql());
                let mut had = "no record in this process: is the name wrong, or was the table renamed?";
                if self.heard.contains(&key_prefix) {
                    had = "records too";
                    self.silent.insert(name.clone(), Silence { key_prefix, name: near.clone(), batches: 0 });
                }
                notice = format!("{notice}. They name {near}, which has had {had}");
            }
            notices.push(notice);
        }
        for cluster in &sources.clusters {
            let first = self.first_cluster.get_or_insert_with(|| cluster.clone());
            if first != cluster && !self.second_cluster {
                self.second_cluster = true;
                notices.push(format!(
                    "records of two clusters arrive, {} and {}, and both write the same rows; set SOURCE_CLUSTER to the right one, or \
                     give each cluster its own view",
                    shown(first),
                    shown(cluster)
                ));
            }
        }
        for version in &sources.versions {
            let is_newer = version.starts_with("1.") && version != "1.0";
            if is_newer && self.versions.len() < MOST_NAMES && self.versions.insert(version.clone()) {
                notices.push(format!(
                    "the records' envelope has version {}, and this function was made for 1.0; it is read like 1.0, since the first \
                     number is the same; look whether there is a newer dsql-view",
                    shown(version)
                ));
            }
        }
        notices
    }

    fn of_indexes(&mut self, entries: &[Entry<'_>], views: &[Option<Arc<TableSchema>>]) -> Vec<String> {
        let mut notices = Vec::new();
        for entry in entries {
            let (Some(table), Some(write)) = (entry.table(), entry.write()) else { continue };
            for attribute in &write.notes.left_out {
                let of = (table.key_prefix().to_owned(), attribute.clone());
                if self.left_out.len() < MOST_NAMES && self.left_out.insert(of) {
                    let schema = views.get(table.view_place()).and_then(Option::as_ref);
                    let (table, attribute) = (table.in_sql(), shown(attribute));
                    notices.push(match schema.and_then(|schema| schema.indexes.wanted(&attribute)) {
                        Some(wanted) => format!(
                            "rows of {table} have values of {attribute} that an index of the view's table refuses: the attribute is left out \
                             of these rows. The index takes type {wanted}, not empty, up to 2,048 bytes (partition key) or 1,024 (sort key). \
                             The rows are in the view, and not in that index"
                        ),
                        None => format!(
                            "rows of {table} lack the attribute {attribute}, since a value cannot stand in its template: a document, an array, \
                             bytes, or a number that does not fit the padding"
                        ),
                    });
                }
            }
        }
        notices
    }

    /// Warns of columns that the definitions do not list, and of columns with values that do not fit their types.
    fn of_columns(&mut self, entries: &[Entry<'_>]) -> Vec<String> {
        let mut notices = Vec::new();
        for entry in entries {
            let (Some(table), Some(Write { notes, .. })) = (entry.table(), entry.write()) else { continue };
            let unlisted = "which the definitions do not list: list it in the table's columns";
            let unfit = "with a value that does not fit its type: it stands as in the record";
            let unlisted = notes.unlisted.iter().map(|column| (unlisted, column));
            for (what, column) in unlisted.chain(notes.unfit.iter().map(|column| (unfit, column))) {
                let of = (what, table.key_prefix().to_owned(), column.clone());
                if self.columns.len() < MOST_NAMES && self.columns.insert(of) {
                    notices.push(format!("a row of {} has the column {}, {what}", table.in_sql(), shown(column)));
                }
            }
        }
        notices
    }
}

/// A table's name as written in SQL, in a form that a log can show.
fn in_sql_of((schema, table): &(String, String)) -> String {
    shown(&format!("{}.{}", in_sql(schema), in_sql(table)))
}

/// A name in a form that a log can show.
fn shown(name: &str) -> String {
    const LONGEST: usize = 200;
    name.chars()
        .take(LONGEST)
        .flat_map(|next| {
            let is_plain = next == '"' || next == '\'' || !next.is_control();
            let escaped = (!is_plain).then(|| next.escape_debug());
            escaped.into_iter().flatten().chain(is_plain.then_some(next))
        })
        .collect()
}

/// The configured table whose name is nearest to this one, if any is near. A near name is the same one in another
/// schema or in another case, a part of the other, or a typing error away.
fn near<'t>(name: &(String, String), tables: &'t SourceTables) -> Option<&'t SourceTable> {
    let (schema, table) = (name.0.to_lowercase(), name.1.to_lowercase());
    let distance = |other: &SourceTable| {
        let (other_schema, other) = (other.schema().to_lowercase(), other.name().to_lowercase());
        let schemas = usize::from(schema != other_schema);
        let shorter = table.len().min(other.len());
        let names = strsim::osa_distance(&table, &other);
        let is_part = shorter >= 4 && (table.contains(&other) || other.contains(&table));
        // A third of the letters may differ: at least one, and at most four.
        let is_near = names <= (shorter / 3).clamp(1, 4) || is_part;
        is_near.then_some((names + schemas, other_schema, other))
    };
    let near = tables.iter().filter_map(|table| Some((distance(table)?, table)));
    near.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, table)| table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::disposition::Disposition;
    use crate::batch::ledger::tests::ended;
    use crate::record::delivery::Record;

    fn sources(unconfigured: &[(&str, &str)], clusters: &[&str], versions: &[&str]) -> Sources {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Sources {
            unconfigured: unconfigured
                .iter()
                .map(|(schema, name)| ((*schema).to_owned(), (*name).to_owned()))
                .collect(),
            clusters: texts(clusters),
            versions: texts(versions),
        }
    }

    #[test]
    fn a_near_name_is_one_that_a_person_could_have_meant() {
        let tables: SourceTables =
            r#"public.users(id), public.orders(id), sales.invoices(id), "Items"(id), ab(id)"#.parse().unwrap();
        for (schema, table, expected) in [
            ("public", "user", Some("public.users")),
            ("public", "Users", Some("public.users")),
            ("public", "usres", Some("public.users")),
            ("other", "users", Some("public.users")),
            ("public", "orders_old", Some("public.orders")),
            ("public", "new_orders", Some("public.orders")),
            ("public", "order", Some("public.orders")),
            ("public", "invoices", Some("sales.invoices")),
            ("public", "items", Some("public.\"Items\"")),
            ("public", "customers", None),
            ("public", "x", None),
            ("public", "log", None),
        ] {
            let found = near(&(schema.to_owned(), table.to_owned()), &tables).map(SourceTable::in_sql);
            assert_eq!(found.as_deref(), expected, "{schema}.{table}");
        }
    }

    #[test]
    fn a_filtered_table_is_told_once_with_the_silent_table_that_may_be_meant() {
        let tables: SourceTables = "users(id), orders(id)".parse().unwrap();
        let record = Record::default();
        let orders = ended(&record, [(tables.get("public", "orders"), Disposition::Applied)]);
        let mut told = Told::default();
        told.hear(&orders.entries());
        let batch = sources(&[("public", "user"), ("public", "orders_2"), ("public", "log")], &[], &[]);
        let notices = told.of_sources(&batch, &tables);
        assert_eq!(notices.len(), 3, "{notices:?}");
        assert!(
            notices[0].contains("public.user are filtered")
                && notices[0].contains("public.users, which has had no record")
        );
        assert!(notices[1].contains("public.orders, which has had records too"), "{}", notices[1]);
        assert!(notices[2].ends_with("neither SOURCE_TABLES nor the definitions name the table"), "{}", notices[2]);
        assert!(told.of_sources(&batch, &tables).is_empty());
    }

    #[test]
    fn a_table_that_falls_silent_while_a_near_name_is_filtered_is_told() {
        let tables: SourceTables = "users(id)".parse().unwrap();
        let record = Record::default();
        let of_users = ended(&record, [(tables.get("public", "users"), Disposition::Applied)]);
        let (of_users, none) = (&*of_users.entries(), &[][..]);
        let renamed = sources(&[("public", "users_old")], &[], &[]);
        let mut told = Told::default();
        let mut batch = |entries: &[Entry<'_>], sources: &Sources| {
            told.hear(entries);
            let mut notices = told.of_sources(sources, &tables);
            notices.extend(told.of_silence(sources, entries));
            notices.len()
        };
        // Both come for a while. Then the configured one stays away, with one interruption.
        assert_eq!(batch(of_users, &renamed), 1);
        assert_eq!((0..50).map(|_| batch(of_users, &renamed)).sum::<usize>(), 0);
        assert_eq!((0..9).map(|_| batch(none, &renamed)).sum::<usize>(), 0);
        assert_eq!(batch(of_users, &renamed), 0);
        assert_eq!((0..50).map(|_| batch(none, &Sources::default())).sum::<usize>(), 0, "neither comes");
        assert_eq!((0..50).map(|_| batch(none, &renamed)).sum::<usize>(), 1, "told, once");
    }

    #[test]
    fn no_more_than_a_hundred_filtered_tables_are_named() {
        let tables: SourceTables = "users(id)".parse().unwrap();
        let mut told = Told::default();
        let mut notices = Vec::new();
        for batch in 0..30 {
            let names: Vec<String> = (0..10).map(|table| format!("zz{batch}_{table}")).collect();
            let names: Vec<(&str, &str)> = names.iter().map(|name| ("public", name.as_str())).collect();
            notices.extend(told.of_sources(&sources(&names, &[], &[]), &tables));
        }
        assert_eq!(notices.len(), 101);
        assert_eq!(notices[100], "more than 100 tables are filtered; no further names are logged");
    }

    #[test]
    fn a_second_cluster_and_a_newer_version_are_told_once() {
        let tables: SourceTables = "users(id)".parse().unwrap();
        let mut told = Told::default();
        let mut notices = Vec::new();
        for (cluster, version) in [("a", "1.0"), ("a", "1.1"), ("b", "1.1"), ("c", "1.2"), ("a", "1.0")] {
            notices.extend(told.of_sources(&sources(&[], &[cluster], &[version]), &tables));
        }
        assert_eq!(notices.len(), 3, "{notices:?}");
        assert!(notices[0].contains("envelope has version 1.1,"), "{}", notices[0]);
        assert!(notices[1].contains("two clusters arrive, a and b,"), "{}", notices[1]);
        assert!(notices[2].contains("envelope has version 1.2,"), "{}", notices[2]);
    }

    #[test]
    fn a_name_cannot_write_a_line_of_its_own() {
        assert_eq!(shown("public.\"a\nERROR b\u{1b}[0m\""), "public.\"a\\nERROR b\\u{1b}[0m\"");
        assert_eq!(shown(&"x".repeat(1000)).len(), 200);
    }
}

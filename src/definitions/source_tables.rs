//! The tables that the view keeps, with their primary keys and the shapes of their items; and `SOURCE_TABLES`, the short
//! form without shapes.
//!
//! The grammar of the short form, with identifiers quoted and folded to lower case as in SQL:
//!
//! ```text
//! list   = table { separator table }          separator = commas, white space, new lines
//! table  = [ name "." ] name "(" name { "," name } ")"
//! name   = letter or "_", then letters, digits, "_" or "$"   (folded to lower case)
//!        | '"' any characters, a quote doubled '"'            (kept as written)
//! ```
//!
//! Kept by hand, in some 220 lines, because a crate that parses SQL is too big for this grammar, and our messages say
//! how to correct the setting.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::iter::Peekable;
use std::str::{CharIndices, FromStr};
use std::sync::Arc;

use crate::bucket::{segment, table_folder};
use crate::definitions::marks::Marks;
use crate::definitions::shape::Shape;
use crate::definitions::template::Template;

const DEFAULT_SCHEMA: &str = "public";

/// A table that the view keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTable {
    schema: String,
    name: String,
    primary_key: Vec<String>,
    key_prefix: String,
    objects_folder: Arc<str>,
    view: Option<String>,
    shape: Option<Box<Shape>>,
    view_place: usize,
}

impl SourceTable {
    /// A table whose rows stand as the contract without definitions has them, in the view's only table.
    pub fn new(schema: String, name: String, primary_key: Vec<String>) -> Self {
        let key_prefix = prefix(&schema, &name);
        let objects_folder = ["overflow/", &table_folder(&key_prefix), "/"].concat().into();
        Self { schema, name, primary_key, key_prefix, objects_folder, view: None, shape: None, view_place: 0 }
    }

    /// The same table, in the view table with this logical name, and with this shape.
    #[must_use]
    pub fn with_definition(mut self, view: Option<String>, shape: Option<Shape>) -> Self {
        if let Some(view) = &view {
            self.objects_folder = format!("{}{}/", self.objects_folder, segment(view)).into();
        }
        (self.view, self.shape) = (view, shape.map(Box::new));
        self
    }

    /// The logical name of its view table; `None` for the one that `VIEW_TABLE` names.
    pub fn view(&self) -> Option<&str> {
        self.view.as_deref()
    }

    /// The shape of its items, if the definitions give one.
    pub fn shape(&self) -> Option<&Shape> {
        self.shape.as_deref()
    }

    /// The texts with which the partition keys and the sort keys of all its items begin.
    pub fn key_prefixes(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        match self.shape().and_then(|shape| shape.key.as_ref()) {
            Some(key) => {
                let sort = key.sort.as_ref().map_or("", Template::prefix);
                (Cow::Borrowed(key.partition.prefix()), Cow::Borrowed(sort))
            }
            None => (Cow::Owned(format!("{}#", self.key_prefix)), Cow::Borrowed("")),
        }
    }

    /// The folder of the objects that hold its rows' moved columns.
    pub fn objects_folder(&self) -> &Arc<str> {
        &self.objects_folder
    }

    /// The place of its view table among those of the function.
    pub fn view_place(&self) -> usize {
        self.view_place
    }

    /// The columns of the primary key, in key order; at least one.
    pub fn primary_key(&self) -> &[String] {
        &self.primary_key
    }

    /// Its schema.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Its name in the schema.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its schema and its name, as written in SQL.
    pub(crate) fn in_sql(&self) -> String {
        format!("{}.{}", in_sql(&self.schema), in_sql(&self.name))
    }

    /// The text with which the view keys of all its rows begin.
    pub(crate) fn key_prefix(&self) -> &str {
        &self.key_prefix
    }
}

impl fmt::Display for SourceTable {
    /// Shows the table as the view's keys do, so that no two tables look the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key_prefix)
    }
}

/// The tables of `SOURCE_TABLES`, found by schema and name.
#[derive(Debug, Clone, Default)]
pub struct SourceTables {
    by_schema: HashMap<String, HashMap<String, SourceTable>>,
}

impl SourceTables {
    /// The table with this schema and name, if it is configured. Both must match exactly.
    pub fn get(&self, schema: &str, name: &str) -> Option<&SourceTable> {
        self.by_schema.get(schema)?.get(name)
    }

    /// What these tables have and `short` has not, and the other way round: tables and their primary keys.
    pub fn differences(&self, short: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for table in self.iter() {
            match short.get(&table.schema, &table.name) {
                None => differences.push(format!("only the file names {}", table.in_sql())),
                Some(other) if other.primary_key != table.primary_key => {
                    let keys = [&table.primary_key, &other.primary_key].map(|key| key.join(", "));
                    differences.push(format!(
                        "the key of {} is ({}) in the file, and ({})",
                        table.in_sql(),
                        keys[0],
                        keys[1]
                    ));
                }
                Some(_) => {}
            }
        }
        let only_there = short.iter().filter(|table| self.get(&table.schema, &table.name).is_none());
        differences.extend(only_there.map(|table| format!("the file lacks {}", table.in_sql())));
        differences.sort();
        differences
    }

    /// The tables of a view table, given by its place; in no particular order.
    pub fn of_view(&self, place: usize) -> impl Iterator<Item = &SourceTable> {
        self.iter().filter(move |table| table.view_place == place)
    }

    /// All tables, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &SourceTable> {
        self.by_schema.values().flat_map(HashMap::values)
    }

    /// Puts each table into the view table that `place` gives for its logical name.
    pub fn place_views(&mut self, place: impl Fn(Option<&str>) -> usize) {
        for table in self.by_schema.values_mut().flat_map(HashMap::values_mut) {
            table.view_place = place(table.view.as_deref());
        }
    }

    /// Adds a table.
    ///
    /// # Errors
    /// It is there already.
    pub fn insert(&mut self, table: SourceTable) -> Result<(), SourceTablesError> {
        let tables = self.by_schema.entry(table.schema.clone()).or_default();
        if tables.contains_key(&table.name) {
            return Err(SourceTablesError::TableTwice { table: table.to_string() });
        }
        tables.insert(table.name.clone(), table);
        Ok(())
    }
}

/// Why `SOURCE_TABLES` cannot be read; positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum SourceTablesError {
    #[error("at character {position}: expected {expected}, found {found}")]
    Unexpected { position: usize, expected: &'static str, found: String },
    #[error(
        "at character {position}: the quotation mark is never closed; a quotation mark within a name is written twice"
    )]
    OpenQuote { position: usize },
    #[error("at character {position}: a name is empty; write the name between the quotation marks")]
    EmptyName { position: usize },
    #[error("the table {table} has no key columns: name its primary key, as in {table}(id){hint}")]
    NoColumns { table: String, hint: &'static str },
    #[error("the table {table} is named twice: remove one of the two")]
    TableTwice { table: String },
    #[error(
        "the key of {table} names the column {column} twice: name each column of the primary key once, in key order"
    )]
    ColumnTwice { table: String, column: String },
    #[error(
        "the key of {table} names {column}, which the view keeps for itself: define the table in views.toml, where rename or [marks] gives one of the two another name"
    )]
    ReservedColumn { table: String, column: String },
    #[error("it names no table: list the tables with their primary keys, as in public.users(id)")]
    NoTables,
}

impl FromStr for SourceTables {
    type Err = SourceTablesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parser = Parser { text, chars: text.char_indices().peekable() };
        let mut tables = Self::default();
        parser.skip_separators();
        while parser.chars.peek().is_some() {
            tables.insert(parser.table()?)?;
            if !parser.skip_separators() && parser.chars.peek().is_some() {
                return Err(parser.unexpected("a comma or white space between two tables"));
            }
        }
        if tables.by_schema.is_empty() {
            return Err(SourceTablesError::NoTables);
        }
        Ok(tables)
    }
}

/// Reads the name of one table, as `SOURCE_TABLES` has it before the brackets: its schema and its name.
///
/// # Errors
/// The text is something else.
pub(crate) fn table_name(text: &str) -> Result<(String, String), SourceTablesError> {
    let mut parser = Parser { text, chars: text.char_indices().peekable() };
    let name = parser.table_name()?;
    match parser.chars.peek() {
        None => Ok(name),
        Some((_, '.')) => Err(parser.unexpected("the end: a table has a schema and a name, no database")),
        Some((_, '(')) => Err(parser.unexpected("the end: the columns of the key stand in primary_key")),
        Some((_, '"')) => Err(parser.unexpected("the end; is a quotation mark missing, or one too many, before?")),
        Some(_) => Err(parser.unexpected("the end: other characters in a name need quotation marks")),
    }
}

/// A name as written in SQL: in quotation marks if it needs them.
pub(crate) fn in_sql(name: &str) -> Cow<'_, str> {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && chars.all(|next| next.is_alphanumeric() || next == '_' || next == '$')
        && !name.contains(|any: char| any.is_ascii_uppercase());
    if plain { Cow::Borrowed(name) } else { Cow::Owned(format!("\"{}\"", name.replace('"', "\"\""))) }
}

/// The text with which the view keys of a table's rows begin: `<schema>.<table>`. Within a name, `%`, `#` and `.` are
/// written as in URLs.
pub(crate) fn prefix(schema: &str, table: &str) -> String {
    let mut prefix = String::with_capacity(schema.len() + table.len() + 1);
    push_escaped(&mut prefix, schema, &['%', '#', '.']);
    prefix.push('.');
    push_escaped(&mut prefix, table, &['%', '#', '.']);
    prefix
}

/// Appends a text with its `structural` characters (some of `%`, `#` and `.`) written as in URLs.
pub(crate) fn push_escaped(to: &mut String, text: &str, structural: &[char]) {
    let mut rest = text;
    while let Some(at) = rest.find(structural) {
        let (plain, from) = rest.split_at(at);
        to.push_str(plain);
        to.push_str(match from.as_bytes()[0] {
            b'%' => "%25",
            b'#' => "%23",
            _ => "%2E",
        });
        rest = &from[1..];
    }
    to.push_str(rest);
}

struct Parser<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl Parser<'_> {
    fn table_name(&mut self) -> Result<(String, String), SourceTablesError> {
        let first = self.name("a table's name")?;
        if self.accept('.') {
            Ok((first, self.name("the table's name after the schema")?))
        } else {
            Ok((DEFAULT_SCHEMA.to_owned(), first))
        }
    }

    fn table(&mut self) -> Result<SourceTable, SourceTablesError> {
        let (schema, name) = self.table_name()?;
        let table = format!("{}.{}", in_sql(&schema), in_sql(&name));

        let instead = match self.chars.peek() {
            Some((_, '.')) => Some("\"(\" and the key columns: a table has a schema and a name, no database"),
            Some((_, '"')) => Some("\"(\" and the key columns; is a quotation mark missing, or one too many, before?"),
            _ => None,
        };
        if let Some(expected) = instead {
            return Err(self.unexpected(expected));
        }
        self.skip_white_space();
        if !self.accept('(') {
            let misread = name.contains(['(', ')', ',']);
            let hint =
                if misread { "; or is a quotation mark missing, so that the name is longer than meant?" } else { "" };
            return match self.chars.peek() {
                None | Some((_, ',' | ')' | '"' | '_')) => Err(SourceTablesError::NoColumns { table, hint }),
                Some((_, next)) if next.is_alphanumeric() => Err(SourceTablesError::NoColumns { table, hint }),
                Some(_) => {
                    Err(self.unexpected("\"(\" and the key columns; other characters in a name need quotation marks"))
                }
            };
        }
        let primary_key = self.columns(&table)?;
        Ok(SourceTable::new(schema, name, primary_key))
    }

    fn columns(&mut self, table: &str) -> Result<Vec<String>, SourceTablesError> {
        let mut columns = Vec::new();
        self.skip_white_space();
        if self.accept(')') {
            return Err(SourceTablesError::NoColumns { table: table.to_owned(), hint: "" });
        }
        loop {
            self.skip_white_space();
            let column = self.name("a key column's name")?;
            if columns.contains(&column) {
                return Err(SourceTablesError::ColumnTwice { table: table.to_owned(), column });
            }
            if Marks::default().reserved().contains(&column.as_str()) {
                return Err(SourceTablesError::ReservedColumn { table: table.to_owned(), column });
            }
            columns.push(column);
            self.skip_white_space();
            if self.accept(')') {
                return Ok(columns);
            }
            if !self.accept(',') {
                return Err(self.unexpected("\",\" or \")\" after a key column"));
            }
        }
    }

    fn name(&mut self, expected: &'static str) -> Result<String, SourceTablesError> {
        match self.chars.peek() {
            Some((_, '"')) => self.quoted_name(),
            Some((_, first)) if first.is_alphabetic() || *first == '_' => Ok(self.plain_name()),
            _ => Err(self.unexpected(expected)),
        }
    }

    /// Reads an unquoted name. PostgreSQL folds its ASCII letters to lower case.
    fn plain_name(&mut self) -> String {
        let of_name = |(_, next): &(usize, char)| next.is_alphanumeric() || *next == '_' || *next == '$';
        std::iter::from_fn(|| self.chars.next_if(of_name)).map(|(_, next)| next.to_ascii_lowercase()).collect()
    }

    fn quoted_name(&mut self) -> Result<String, SourceTablesError> {
        let position = self.position();
        self.chars.next();
        let mut name = String::new();
        loop {
            match self.chars.next() {
                None => return Err(SourceTablesError::OpenQuote { position }),
                Some((_, '"')) if self.accept('"') => name.push('"'),
                Some((_, '"')) if name.is_empty() => return Err(SourceTablesError::EmptyName { position }),
                Some((_, '"')) => return Ok(name),
                Some((_, other)) => name.push(other),
            }
        }
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.chars.next_if(|(_, next)| *next == wanted).is_some()
    }

    fn skip_white_space(&mut self) {
        while self.chars.next_if(|(_, next)| next.is_whitespace()).is_some() {}
    }

    /// Skips commas and white space, and returns whether there were any.
    fn skip_separators(&mut self) -> bool {
        std::iter::from_fn(|| self.chars.next_if(|(_, next)| next.is_whitespace() || *next == ',')).count() > 0
    }

    /// The place of the next character, counted from 1.
    fn position(&mut self) -> usize {
        let byte = self.chars.peek().map_or(self.text.len(), |(byte, _)| *byte);
        self.text.char_indices().take_while(|(start, _)| *start < byte).count() + 1
    }

    fn unexpected(&mut self, expected: &'static str) -> SourceTablesError {
        let found = self.chars.peek().map_or_else(|| "the end".to_owned(), |(_, next)| format!("{next:?}"));
        SourceTablesError::Unexpected { position: self.position(), expected, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<(String, Vec<String>)> {
        let tables: SourceTables = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let mut found: Vec<_> = tables.iter().map(|table| (table.to_string(), table.primary_key().to_vec())).collect();
        found.sort();
        found
    }

    fn check(text: &str, expected: &[(&str, &[&str])]) {
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(table, columns)| ((*table).to_owned(), columns.iter().map(|column| (*column).to_owned()).collect()))
            .collect();
        assert_eq!(keys(text), expected, "{text:?}");
    }

    #[test]
    fn tables_are_separated_by_commas_or_white_space() {
        let both: &[(&str, &[&str])] = &[("public.order_items", &["order_id", "item_id"]), ("public.users", &["id"])];
        for text in [
            "public.users(id), public.order_items(order_id, item_id)",
            "public.users(id) public.order_items(order_id,item_id)",
            "users(id)\n  order_items (order_id ,\n item_id)\n",
            ",users( id ),,\torder_items(order_id,item_id),",
        ] {
            check(text, both);
        }
    }

    #[test]
    fn names_are_quoted_and_folded_as_in_sql() {
        check(r#""Sales"."Order Lines"("Order Id")"#, &[("Sales.Order Lines", &["Order Id"])]);
        check("Sales.Orders(Id)", &[("sales.orders", &["id"])]);
        check(r#""a""b"(id)"#, &[(r#"public.a"b"#, &["id"])]);
        check(r#""a.b"."c,d(e)"("f)")"#, &[("a%2Eb.c,d(e)", &["f)"])]);
        check("größen(größe_1$)", &[("public.größen", &["größe_1$"])]);
    }

    #[test]
    fn a_name_is_written_as_in_sql() {
        for (name, written) in [
            ("users", "users"),
            ("_users", "_users"),
            ("über_1$", "über_1$"),
            ("1users", r#""1users""#),
            ("$users", r#""$users""#),
            ("", r#""""#),
            ("Users", r#""Users""#),
            ("order lines", r#""order lines""#),
            ("order-lines", r#""order-lines""#),
            (r#"a"b"#, r#""a""b""#),
        ] {
            assert_eq!(in_sql(name), written);
        }
    }

    #[test]
    fn the_same_table_in_two_schemas_is_two_tables() {
        check("a.users(id) b.users(uid)", &[("a.users", &["id"]), ("b.users", &["uid"])]);
    }

    #[test]
    fn an_error_says_where_it_is_and_what_was_expected() {
        for (text, expected) in [
            ("users", "the table public.users has no key columns: name its primary key, as in public.users(id)"),
            ("users()", "the table public.users has no key columns"),
            ("users, orders(id)", "the table public.users has no key columns"),
            ("users orders(id)", "the table public.users has no key columns"),
            ("users(id), users(id)", "the table public.users is named twice"),
            ("users(id), PUBLIC.Users(name)", "the table public.users is named twice"),
            ("users(id, id)", "names the column id twice"),
            ("users(_ts_ns)", "names _ts_ns, which the view keeps for itself"),
            (r#""users(id)"#, "at character 1: the quotation mark is never closed"),
            (r#"users("id)"#, "at character 7: the quotation mark is never closed"),
            (r#"""(id)"#, "at character 1: a name is empty"),
            ("users(id", "at character 9: expected \",\" or \")\" after a key column, found the end"),
            ("users(id))", "at character 10: expected a comma or white space between two tables, found ')'"),
            ("users(id,)", "at character 10: expected a key column's name, found ')'"),
            ("users(id)orders(id)", "at character 10: expected a comma or white space"),
            ("db.public.users(id)", "at character 10: expected \"(\" and the key columns: a table has a schema"),
            ("order-items(id)", "other characters in a name need quotation marks, found '-'"),
            ("1st(id)", "at character 1: expected a table's name, found '1'"),
            ("größen(id)) x(id)", "at character 11: expected a comma"),
            (r#"users"(id)"#, "at character 6: expected \"(\" and the key columns; is a quotation mark missing"),
            (
                r#""users(id), "orders"(id)"#,
                r#"the table public."users(id), " has no key columns: name its primary key, as in public."users(id), "(id); or is a quotation"#,
            ),
            (r#""Sales"."Order Lines"()"#, r#"the table "Sales"."Order Lines" has no key columns"#),
            (" , ", "it names no table"),
        ] {
            let message = text.parse::<SourceTables>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?} gave: {message}\nexpected: {expected}");
        }
    }
}

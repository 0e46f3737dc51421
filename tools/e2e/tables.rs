//! The tables of the run, and the types of their columns.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard};

use crate::literals;

/// The column types that Aurora DSQL has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    SmallInt,
    Integer,
    BigInt,
    Oid,
    Real,
    Double,
    Numeric,
    Money,
    Boolean,
    Text,
    Varchar,
    Char,
    Bpchar,
    Name,
    Uuid,
    Bytea,
    Json,
    Jsonb,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    OidVector,
}

impl Type {
    pub const ALL: [Self; 25] = [
        Self::SmallInt,
        Self::Integer,
        Self::BigInt,
        Self::Oid,
        Self::Real,
        Self::Double,
        Self::Numeric,
        Self::Money,
        Self::Boolean,
        Self::Text,
        Self::Varchar,
        Self::Char,
        Self::Bpchar,
        Self::Name,
        Self::Uuid,
        Self::Bytea,
        Self::Json,
        Self::Jsonb,
        Self::Date,
        Self::Time,
        Self::TimeTz,
        Self::Timestamp,
        Self::TimestampTz,
        Self::Interval,
        Self::OidVector,
    ];

    /// The name of the type in `CREATE TABLE`.
    pub fn sql(self) -> &'static str {
        match self {
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Oid => "oid",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Numeric => "numeric",
            Self::Money => "numeric(12, 2)",
            Self::Boolean => "boolean",
            Self::Text => "text",
            Self::Varchar => "varchar(40)",
            Self::Char => "char(8)",
            Self::Bpchar => "bpchar",
            Self::Name => "name",
            Self::Uuid => "uuid",
            Self::Bytea => "bytea",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Date => "date",
            Self::Time => "time",
            Self::TimeTz => "timetz",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::Interval => "interval",
            Self::OidVector => "oidvector",
        }
    }
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub of_type: Type,
}

impl Column {
    pub fn new(name: impl Into<String>, of_type: Type) -> Self {
        Self { name: name.into(), of_type }
    }
}

/// A foreign key of one column.
#[derive(Debug)]
pub struct ForeignKey {
    pub column: &'static str,
    /// The table whose primary key it names, in SQL.
    parent: &'static str,
    /// How many values the parent's key takes in this run.
    pub parents: usize,
    /// The actions of the database on a row when its parent changes.
    actions: &'static str,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    pub schema: &'static str,
    pub name: &'static str,
    /// The primary key in key order, with the number of values that each column takes in this run. Empty for a table
    /// without a key.
    pub key: Vec<(Column, usize)>,
    /// Whether it stands in `SOURCE_TABLES`.
    pub in_view: bool,
    pub foreign_key: Option<ForeignKey>,
    /// The other columns, as they are now. Those of one table come and go.
    columns: Mutex<Vec<Column>>,
}

impl Table {
    fn new(
        schema: &'static str,
        name: &'static str,
        key: &[(&str, Type, usize)],
        columns: &[(&str, Type)],
        in_view: bool,
    ) -> Self {
        let key = key.iter().map(|(name, of_type, values)| (Column::new(*name, *of_type), *values)).collect();
        let columns = columns.iter().map(|(name, of_type)| Column::new(*name, *of_type)).collect();
        Self { schema, name, key, in_view, foreign_key: None, columns: Mutex::new(columns) }
    }

    fn with(self, foreign_key: ForeignKey) -> Self {
        Self { foreign_key: Some(foreign_key), ..self }
    }

    /// The other columns, as they are now.
    pub fn columns(&self) -> MutexGuard<'_, Vec<Column>> {
        self.columns.lock().expect("no holder panics")
    }

    /// Its name in SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quoted(self.schema), quoted(self.name))
    }

    /// How many rows it can have.
    pub fn rows(&self) -> usize {
        self.key.iter().map(|(_, values)| values).product()
    }

    /// The literals of the key of one of its rows.
    pub fn key_of(&self, row: usize) -> Vec<String> {
        let mut rest = row;
        let mut literals = Vec::new();
        for (column, values) in &self.key {
            literals.push(literals::key(column.of_type, rest % values));
            rest /= values;
        }
        literals
    }

    /// The SQL that creates it.
    pub fn create(&self) -> String {
        let columns = self.columns();
        let all = self.key.iter().map(|(column, _)| column).chain(columns.iter());
        let mut body: Vec<String> =
            all.map(|column| format!("{} {}", quoted(&column.name), column.of_type.sql())).collect();
        if !self.key.is_empty() {
            let names: Vec<String> = self.key.iter().map(|(column, _)| quoted(&column.name)).collect();
            body.push(format!("PRIMARY KEY ({})", names.join(", ")));
        }
        if let Some(ForeignKey { column, parent, actions, .. }) = &self.foreign_key {
            body.push(format!("FOREIGN KEY ({}) REFERENCES {parent} {actions}", quoted(column)));
        }
        // A record of Aurora DSQL holds the whole row. Only FULL shows the values that an update has left where they
        // were (TOAST).
        format!("CREATE TABLE {0} ({1}); ALTER TABLE {0} REPLICA IDENTITY FULL;", self.sql(), body.join(", "))
    }
}

/// A name as SQL's quoted identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `SOURCE_TABLES` for the tables that are in the view.
pub fn source_tables(tables: &[Table]) -> String {
    let mut list = String::new();
    for table in tables.iter().filter(|table| table.in_view) {
        let key: Vec<String> = table.key.iter().map(|(column, _)| quoted(&column.name)).collect();
        writeln!(list, "{}({})", table.sql(), key.join(", ")).expect("writing to a string");
    }
    list
}

/// The definitions file for the same tables. It gives the table of every type its types, and the others what
/// `SOURCE_TABLES` gives them.
pub fn definitions(tables: &[Table]) -> String {
    // A basic string of TOML takes JSON's escapes.
    let string = |text: &str| serde_json::Value::from(text).to_string();
    let mut file = "version = 1\n\n[types]\nnumeric = \"number\"\ntimestamp = \"iso8601\"\ntimestamptz = \"millis\"\n\
                    date = \"iso8601\"\ntime = \"iso8601\"\ntimetz = \"iso8601\"\njson = \"document\"\njsonb = \"document\"\n\
                    bytea = \"binary\"\n"
        .to_owned();
    for table in tables.iter().filter(|table| table.in_view) {
        let key: Vec<String> = table.key.iter().map(|(column, _)| string(&column.name)).collect();
        write!(file, "\n[[table]]\nname = {}\nprimary_key = [{}]\n", string(&table.sql()), key.join(", "))
            .expect("writing to a string");
        if table.name == EVERY_TYPE {
            let columns = table.columns();
            let all = table.key.iter().map(|(column, _)| column).chain(columns.iter());
            let typed: Vec<String> =
                all.map(|column| format!("{} = {}", string(&column.name), string(column.of_type.sql()))).collect();
            writeln!(file, "columns = {{ {} }}", typed.join(", ")).expect("writing to a string");
        }
    }
    file
}

/// The table with columns of every type. The definitions give it its types.
pub const EVERY_TYPE: &str = "every_type";

/// The table whose columns are added, dropped and renamed.
pub const EVOLVING: &str = "evolving";

/// The table of large rows.
pub const DOCUMENTS: &str = "documents";

/// All tables, parents before their children.
pub fn all() -> Vec<Table> {
    use Type::{
        BigInt, Boolean, Bpchar, Bytea, Char, Date, Double, Integer, Json, Jsonb, Money, Numeric, Oid, Text, Timestamp,
        TimestampTz, Uuid,
    };
    let names: Vec<String> = Type::ALL.iter().map(|of_type| format!("{of_type:?}").to_lowercase()).collect();
    let every_type: Vec<(&str, Type)> = names.iter().map(String::as_str).zip(Type::ALL).collect();
    let (texts, codes, amounts) = (literals::KEY_TEXTS.len(), literals::KEY_CODES.len(), literals::KEY_AMOUNTS.len());
    let to_warehouse =
        |actions| ForeignKey { column: "warehouse", parent: "public.warehouses", parents: codes, actions };
    vec![
        Table::new("public", EVERY_TYPE, &[("id", BigInt, 300)], &every_type, true),
        Table::new(
            "public",
            "order_items",
            &[("order_id", BigInt, 40), ("item_id", Integer, 6)],
            &[("quantity", Integer), ("price", Money), ("note", Text)],
            true,
        ),
        Table::new(
            "Sales",
            "Order Lines",
            &[("Order Id", Uuid, 100)],
            &[("Unit %", Numeric), ("#", Text), ("a.b \"c\"", Json), ("straße", Char)],
            true,
        ),
        Table::new(
            "public",
            "labels",
            &[("label", Text, texts), ("part", Text, texts)],
            &[("seen", TimestampTz), ("weight", Double)],
            true,
        ),
        Table::new(
            "Sales",
            "measures.v1#%",
            &[("flag", Boolean, 2), ("day", Date, 7), ("at", Timestamp, 4), ("code", Char, 4), ("amount", Money, 3)],
            &[("value", Double)],
            true,
        ),
        Table::new("public", EVOLVING, &[("id", Oid, 60)], &[("counter", Integer), ("first", Text)], true),
        Table::new(
            "public",
            DOCUMENTS,
            &[("id", Integer, 8)],
            &[("title", Text), ("body", Text), ("scan", Bytea)],
            true,
        ),
        Table::new("public", "warehouses", &[("code", Char, codes)], &[("name", Bpchar), ("layout", Jsonb)], true),
        Table::new(
            "public",
            "shelves",
            &[("warehouse", Char, codes), ("height", Money, amounts)],
            &[("load", Numeric), ("content", Jsonb)],
            true,
        )
        .with(to_warehouse("ON DELETE CASCADE ON UPDATE CASCADE")),
        Table::new("Sales", "boxes", &[("id", BigInt, 60)], &[("warehouse", Char), ("label", Text)], true)
            .with(to_warehouse("ON DELETE SET NULL ON UPDATE CASCADE")),
        Table::new("public", "audit_log", &[("id", BigInt, 50)], &[("entry", Json), ("at", TimestampTz)], false),
        Table::new("Sales", "journal", &[], &[("line", Text), ("raw", Bytea)], false),
    ]
}

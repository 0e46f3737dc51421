//! The statements of random transactions.

use dsql_view_support::random::Random;

use crate::literals;
use crate::tables::{Column, DOCUMENTS, Table, Type, quoted};

/// The statements of a random transaction.
pub fn transaction(tables: &[Table], random: &mut Random) -> Vec<String> {
    let isolation = ["READ COMMITTED", "REPEATABLE READ"][random.below(2)];
    let mut statements = vec![format!("SET TRANSACTION ISOLATION LEVEL {isolation}")];
    for _ in 0..=random.below(8) {
        if random.percent(12) {
            let mut within = in_savepoint(statement(tables, random));
            if random.percent(50) {
                within.pop();
                within.push("ROLLBACK TO SAVEPOINT s".to_owned());
            }
            statements.extend(within);
        }
        statements.extend(statement(tables, random));
    }
    if random.percent(10) {
        statements.push("ROLLBACK".to_owned());
    }
    statements
}

/// A random change of one row or several, or now and then a row that comes and goes.
fn statement(tables: &[Table], random: &mut Random) -> Vec<String> {
    let table = loop {
        let table = &tables[random.below(tables.len())];
        if table.name != DOCUMENTS {
            break table;
        }
    };
    let columns = table.columns().clone();
    if table.key.is_empty() {
        let of_line = |random: &mut Random| format!("line = {}", literals::any(Type::Text, random));
        return vec![match random.below(4) {
            0 => format!("UPDATE {} SET raw = '\\x00' WHERE {}", table.sql(), of_line(random)),
            1 => format!("DELETE FROM {} WHERE {}", table.sql(), of_line(random)),
            _ => insert(table, &columns, &[], random),
        }];
    }
    // A few rows are hot.
    let rows = table.rows();
    let row = |random: &mut Random| if random.percent(25) { random.below(3) } else { random.below(rows) };
    let key = table.key_of(row(random));
    let where_key = format!("WHERE {}", conditions(table, &key).join(" AND "));
    let statements = match random.below(100) {
        0..30 => {
            let new = columns.iter().map(|column| quoted(&column.name));
            let new: Vec<String> = new.map(|name| format!("{name} = EXCLUDED.{name}")).collect();
            let names: Vec<String> = table.key.iter().map(|(column, _)| quoted(&column.name)).collect();
            let insert = insert(table, &columns, &key, random);
            vec![format!("{insert} ON CONFLICT ({}) DO UPDATE SET {}", names.join(", "), new.join(", "))]
        }
        30..38 => in_savepoint(vec![insert(table, &columns, &key, random)]),
        38..64 => vec![update(table, &columns, &where_key, random)],
        64..72 => vec![update(table, &columns, &where_key, random), update(table, &columns, &where_key, random)],
        72..84 => vec![format!("DELETE FROM {} {where_key}", table.sql())],
        84..88 => {
            let delete = format!("DELETE FROM {} {where_key}", table.sql());
            in_savepoint(vec![insert(table, &columns, &key, random), delete])
        }
        88..91 => vec![format!("DELETE FROM {} {where_key}", table.sql()), insert(table, &columns, &key, random)],
        91..97 => {
            let new = conditions(table, &table.key_of(row(random)));
            in_savepoint(vec![format!("UPDATE {} SET {} {where_key}", table.sql(), new.join(", "))])
        }
        _ => {
            let some = format!("WHERE ctid = ANY (ARRAY(SELECT ctid FROM {} ORDER BY random() LIMIT 5))", table.sql());
            vec![update(table, &columns, &some, random)]
        }
    };
    // The parent may not be there.
    if table.foreign_key.is_some() { in_savepoint(statements) } else { statements }
}

/// The statements in a savepoint. If they break a rule, the transaction around it goes on.
fn in_savepoint(mut statements: Vec<String>) -> Vec<String> {
    statements.insert(0, "SAVEPOINT s".to_owned());
    statements.push("RELEASE SAVEPOINT s".to_owned());
    statements
}

/// `column = value` for each column of a key.
fn conditions(table: &Table, key: &[String]) -> Vec<String> {
    let columns = table.key.iter().map(|(column, _)| quoted(&column.name));
    columns.zip(key).map(|(name, value)| format!("{name} = {value}")).collect()
}

/// The literal of any value of a column. For a foreign key, it may be the value of a parent.
fn value(table: &Table, column: &Column, random: &mut Random) -> String {
    match &table.foreign_key {
        Some(foreign_key) if foreign_key.column == column.name => {
            if random.percent(10) {
                return "NULL".to_owned();
            }
            literals::key(column.of_type, random.below(foreign_key.parents))
        }
        _ => literals::any(column.of_type, random),
    }
}

fn insert(table: &Table, columns: &[Column], key: &[String], random: &mut Random) -> String {
    let names = table.key.iter().map(|(column, _)| column).chain(columns).map(|column| quoted(&column.name));
    let values = key.iter().cloned().chain(columns.iter().map(|column| value(table, column, random)));
    let (names, values): (Vec<String>, Vec<String>) = (names.collect(), values.collect());
    format!("INSERT INTO {} ({}) VALUES ({})", table.sql(), names.join(", "), values.join(", "))
}

fn update(table: &Table, columns: &[Column], condition: &str, random: &mut Random) -> String {
    let first = random.below(columns.len());
    let mut set = Vec::new();
    for (place, column) in columns.iter().enumerate() {
        if place == first || random.percent(25) {
            set.push(format!("{} = {}", quoted(&column.name), value(table, column, random)));
        }
    }
    format!("UPDATE {} SET {} {condition}", table.sql(), set.join(", "))
}

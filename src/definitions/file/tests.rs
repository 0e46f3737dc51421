//! Tests of the whole file: what is read, and every fault with its place and message.

use super::*;
use crate::definitions::collisions::collisions;
use crate::definitions::conditions::{Absent, Condition, Constant, Test};
use crate::definitions::shape::{Column, KeyTemplates, Placement, Shape, Unlisted};
use crate::definitions::template::{Part, Placeholder, Template};
use crate::definitions::types::{ColumnType, Stands};

/// The beginning of a file with one table; what follows begins in line 5.
const TABLE: &str = "version = 1\n[[table]]\nname = \"orders\"\nprimary_key = [\"id\"]\n";

fn table(rest: &str) -> String {
    format!("{TABLE}{rest}")
}

fn shape(rest: &str) -> Shape {
    let definitions = read("views.toml", table(rest).as_bytes()).unwrap_or_else(|error| panic!("{rest}\n{error}"));
    definitions.tables.get("public", "orders").unwrap().shape().unwrap().clone()
}

/// Checks that a file has exactly these faults, given as the beginnings of their lines, such as `5:7: key is a string`.
fn check(file: &str, expected: &str) {
    check_with("", file, expected);
}

/// The same of a file with one table, whose faults name it.
fn check_table(rest: &str, expected: &str) {
    check_with("public.orders: ", &table(rest), expected);
}

fn check_with(of_table: &str, file: &str, expected: &str) {
    let message = read("views.toml", file.as_bytes()).expect_err(file).to_string();
    let mut found: Vec<String> = message
        .lines()
        .map(|line| line.replacen("views.toml line ", "", 1).replacen(", column ", ":", 1).replacen(of_table, "", 1))
        .collect();
    let expected: Vec<&str> = expected.lines().collect();
    if expected.len() > 1 {
        assert_eq!(found.remove(0), format!("views.toml has {} faults:", expected.len()), "{file}\n{message}");
    }
    assert_eq!(found.len(), expected.len(), "{file}\n{message}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{file}\n{message}\nexpected: {expected}");
    }
}

#[test]
fn the_example_explains_every_key_and_loads_without_warnings() {
    let example = include_str!("../../../views.toml.example");
    let mut definitions = read("views.toml.example", example.as_bytes()).unwrap();
    assert_eq!(definitions.warnings, [""; 0]);
    let mut tables: Vec<String> = definitions.tables.iter().map(ToString::to_string).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["public.order_items", "public.orders", "public.users"]);
    for key in KEYS.iter().chain(&["as", "absent", "in", "not_in", "equals", "is_null", "at_least", "below", "prefix"])
    {
        let shows = |start: &str| example.contains(&format!("{start}{key} = "));
        assert!(
            shows("\n") || shows("{ ") || shows(", ") || shows(": ") || example.contains(&format!("[table.{key}]")),
            "{key}"
        );
    }
    definitions.tables.place_views(|_| 0);
    assert_eq!(collisions(&definitions.tables), [""; 0]);
}

#[test]
fn a_table_with_a_name_a_key_and_a_view_alone_has_no_shape() {
    let file = "\u{feff}version = 1\r\n[types]\r\nnumeric = \"number\"\r\n[[table]]\r\nname = 'Sales.\"Order Lines\"'\r\nprimary_key = [\r\n\t\"a\",\r\n\t\"b\",\r\n]\r\nview = \"shop-1.x_y\"\r\n";
    let definitions = read("v", file.as_bytes()).unwrap();
    let table = definitions.tables.get("sales", "Order Lines").unwrap();
    assert_eq!(
        (table.primary_key(), table.view(), table.shape()),
        (&["a".to_owned(), "b".to_owned()][..], Some("shop-1.x_y"), None)
    );
    assert_eq!(definitions.marks, Marks::default());
    assert_eq!(
        definitions.warnings,
        ["v line 2, column 1: [types] changes nothing, because no table lists its columns with their types in columns"]
    );
    let file = "version = 1\nmarks.prefix = '__'\ntable = [{ name = 'a', primary_key = ['_deleted'] }, { name = 'b.a', primary_key = ['id'] }]";
    let definitions = read("v", file.as_bytes()).unwrap();
    assert_eq!((definitions.marks.deleted.as_str(), definitions.tables.iter().count()), ("__deleted", 2));
}

#[test]
fn the_table_of_the_contract_has_this_shape() {
    let file = r#"
view = "orders"
key = { pk = "ORDER#{id}" }
columns = { id = "uuid", customer_id = "uuid", status = "text", total = "numeric", placed_at = "timestamptz", deleted_at = "timestamptz",
            street = "text", city = "text", email = "text", valid_until = { type = "timestamptz", as = "millis" }, note = "text" }
except = ["note", "deleted_at"]
rename = { placed_at = "placedAt", street = "line1" }
rows = [{ column = "status", not_in = ["draft"] }, { column = "deleted_at", is_null = true, absent = "outside" }]
attributes = { GSI1PK = "CUSTOMER#{customer_id}", GSI1SK = "{placed_at}#{total:010}", entity = "Order", mail = "{status:lower}" }
group = { address = ["street", "city"] }
hash = ["email"]
expires_at = "valid_until"
[types]
numeric = "number"
timestamptz = "iso8601"
"#;
    let attribute = |name: &str| Placement::Attribute(name.to_owned());
    let column = |name: &str, kind, stands, placement| Column {
        name: name.to_owned(),
        kind: Some(kind),
        stands,
        hashed: name == "email",
        placement,
        in_key: (name == "id").then_some(0),
    };
    let text = |name: &str| column(name, ColumnType::Text, Stands::AsInRecord, attribute(name));
    let time = |name: &str, stands, placement| column(name, ColumnType::TimestampTz, stands, placement);
    let member = |name: &str, within: &str| {
        column(name, ColumnType::Text, Stands::AsInRecord, Placement::Group(0, within.to_owned()))
    };
    let columns = vec![
        text("id"),
        text("customer_id"),
        text("status"),
        column("total", ColumnType::Numeric, Stands::Number, attribute("total")),
        time("placed_at", Stands::Iso8601, attribute("placedAt")),
        time("deleted_at", Stands::Iso8601, Placement::LeftOut),
        member("street", "line1"),
        member("city", "city"),
        text("email"),
        time("valid_until", Stands::Millis, attribute("valid_until")),
        column("note", ColumnType::Text, Stands::AsInRecord, Placement::LeftOut),
    ];
    let literal = |text: &str| Part::Literal(text.to_owned());
    let placeholder = |column| Placeholder { column, pad: None, lower: false };
    let template = |parts: &[Part]| Template { parts: parts.to_vec() };
    let condition = |column, test, absent| Condition { column, tests: vec![test], absent };
    let expected = Shape {
        places: columns.iter().enumerate().map(|(place, column)| (column.name.clone(), place)).collect(),
        columns,
        unlisted: Unlisted::LeftOutCounted,
        key: Some(KeyTemplates { partition: template(&[literal("ORDER#"), Part::Column(placeholder(0))]), sort: None }),
        rows: vec![
            condition(2, Test::NotIn(vec![Constant::Text("draft".to_owned())]), Absent::Poison),
            condition(5, Test::IsNull(true), Absent::Outside),
        ],
        attributes: vec![
            ("GSI1PK".to_owned(), template(&[literal("CUSTOMER#"), Part::Column(placeholder(1))])),
            (
                "GSI1SK".to_owned(),
                template(&[
                    Part::Column(placeholder(4)),
                    literal("#"),
                    Part::Column(Placeholder { pad: Some(10), ..placeholder(3) }),
                ]),
            ),
            ("entity".to_owned(), template(&[literal("Order")])),
            ("mail".to_owned(), template(&[Part::Column(Placeholder { lower: true, ..placeholder(2) })])),
        ],
        groups: vec!["address".to_owned()],
        expires_at: Some(9),
        made: ["GSI1PK", "GSI1SK", "entity", "mail", "address", "placedAt"].map(str::to_owned).into(),
    };
    assert_eq!(shape(file), expected);
    let definitions = read("v", table(file).as_bytes()).unwrap();
    assert_eq!(definitions.tables.get("public", "orders").unwrap().view(), Some("orders"));
    assert_eq!(definitions.warnings, [""; 0]);
}

#[test]
fn what_becomes_of_unlisted_columns_depends_on_the_lists() {
    let listed = r#"columns = { id = "uuid", a = "text" }"#;
    for (rest, unlisted) in [
        ("except = ['a']", Unlisted::Stands),
        ("only = ['a']", Unlisted::LeftOut),
        (listed, Unlisted::StandsCounted),
        (&format!("{listed}\nonly = ['a']"), Unlisted::LeftOutCounted),
        (&format!("{listed}\nhash = ['a']"), Unlisted::LeftOutCounted),
    ] {
        assert_eq!(shape(rest).unlisted, unlisted, "{rest}");
    }
    let placements =
        |rest: &str| shape(rest).columns.into_iter().map(|column| (column.name, column.placement)).collect::<Vec<_>>();
    let attribute = |name: &str| (name.to_owned(), Placement::Attribute(name.to_owned()));
    let left_out = |name: &str| (name.to_owned(), Placement::LeftOut);
    let rest = "attributes = { x = '{b}' }\nrows = [{ column = 'c', is_null = false }]\nexpires_at = 'd'\n";
    let found = placements(&format!("{rest}only = ['a', 'c']"));
    assert_eq!(found, [left_out("id"), attribute("a"), attribute("c"), left_out("b"), left_out("d")]);
    let found = placements(&format!("{rest}except = ['a', 'c']"));
    assert_eq!(found, [attribute("id"), left_out("a"), left_out("c"), attribute("b"), attribute("d")]);
    assert_eq!(placements("only = []"), [left_out("id")]);
}

#[test]
fn names_may_move_as_long_as_no_two_are_one() {
    for rest in [
        "rename = { a = 'b', b = 'a' }",
        "rename = { a = 'b' }\nexcept = ['b']",
        "group = { address = ['address', 'city'] }",
        "attributes = { status = 'x' }\nexcept = ['status']",
        "rename = { a = 'city' }\ngroup = { address = ['city'] }",
        "except = ['_deleted']\nrows = [{ column = '_deleted', equals = false }]",
        "rename = { _deleted = 'deleted' }",
        "rename = { a = 'a' }",
    ] {
        shape(rest);
    }
}

#[test]
fn constants_are_read_by_the_type_of_the_column() {
    let text = |text: &str| Constant::Text(text.to_owned());
    let number = |text: &str| Constant::Number(text.to_owned());
    for (kind, values, expected) in [
        ("text", "'a', ''", vec![text("a"), text("")]),
        ("uuid", "'0190F6F4-7a5e-7c3e-8a9b-0123456789ab'", vec![text("0190f6f4-7a5e-7c3e-8a9b-0123456789ab")]),
        (
            "bigint",
            "1, -0, 0x1F, 1_000, 1e3, '9223372036854775808'",
            vec![number("1"), number("0"), number("31"), number("1000"), number("1000"), number("9223372036854775808")],
        ),
        (
            "numeric",
            "0.10, '12.50', 12345678901234567890.123456789012345678901, nan, -inf, 'Infinity'",
            vec![
                number("0.1"),
                number("12.5"),
                number("12345678901234567890.123456789012345678901"),
                number("NaN"),
                number("-Infinity"),
                number("Infinity"),
            ],
        ),
        ("real", "1e-3", vec![number("0.001")]),
        ("boolean", "true, false", vec![Constant::Boolean(true), Constant::Boolean(false)]),
        ("date", "2026-01-31, '1970-01-01'", vec![Constant::Integer(20_484), Constant::Integer(0)]),
        ("time", "12:30:00.5, '00:01'", vec![Constant::Integer(45_000_500_000), Constant::Integer(60_000_000)]),
        ("timetz", "12:30:00, '00:01:00Z'", vec![Constant::Integer(45_000_000_000), Constant::Integer(60_000_000)]),
        ("timestamp", "1970-01-01T00:00:01, '1970-01-01 00:00:01Z'", vec![Constant::Integer(1_000_000); 2]),
        ("timestamptz", "1970-01-01T01:00:01+01:00, '1970-01-01T00:00:01Z'", vec![Constant::Integer(1_000_000); 2]),
    ] {
        let rest = format!("columns = {{ id = 'uuid', x = '{kind}' }}\nrows = [{{ column = 'x', in = [{values}] }}]");
        assert_eq!(shape(&rest).rows[0].tests, [Test::In(expected)], "{kind}");
    }
    for (test, expected) in [
        ("equals = 'a'", Test::In(vec![text("a")])),
        ("not_in = [1, 2.0]", Test::NotIn(vec![number("1"), number("2")])),
        ("at_least = 5", Test::AtLeast(number("5"))),
        ("below = true", Test::Below(Constant::Boolean(true))),
    ] {
        assert_eq!(shape(&format!("rows = [{{ column = 'x', {test} }}]")).rows[0].tests, [expected], "{test}");
    }
}

#[test]
fn a_condition_that_no_row_can_satisfy_is_told_in_a_warning() {
    let columns = "columns = { id = 'uuid', n = 'integer', b = 'boolean', s = 'text', f = 'float4', t = 'date' }";
    for (column, tests, reason) in [
        ("n", "at_least = 5, below = 5", Some("at_least is not before below")),
        ("n", "at_least = 5, below = 6", None),
        ("n", "at_least = 5, in = [1, 4]", Some("no value of a list passes the other tests")),
        ("n", "below = 5, in = [5, 6]", Some("no value of a list passes the other tests")),
        ("n", "at_least = 5, in = [1, 10]", None),
        ("n", "in = [1, 2], not_in = [2, 1]", Some("no value of a list passes the other tests")),
        ("n", "in = []", Some("a list is empty")),
        ("n", "not_in = []", None),
        ("n", "is_null = true, not_in = [5]", Some("a null satisfies is_null = true alone")),
        ("n", "is_null = false, not_in = [5]", None),
        ("n", "is_null = true", None),
        ("b", "not_in = [true, false]", Some("no value of a list passes the other tests")),
        ("b", "below = false", Some("no value of a list passes the other tests")),
        ("b", "not_in = [true]", None),
        ("b", "is_null = false", None),
        ("s", "below = ''", Some("no value comes before that of below")),
        ("s", "at_least = 'b', below = 'a'", Some("at_least is not before below")),
        ("f", "below = -inf", Some("no value comes before that of below")),
        ("f", "at_least = nan, below = inf", Some("at_least is not before below")),
        ("t", "at_least = 2026-01-31, below = 2026-01-30", Some("at_least is not before below")),
        (
            "n",
            "equals = 1 }, { column = 's', equals = 'x' }, { column = 'n', equals = 2",
            Some("no value of a list passes the other tests"),
        ),
        ("n", "is_null = true }, { column = 'n', is_null = false", Some("a null satisfies is_null = true alone")),
    ] {
        let file = table(&format!("{columns}\nrows = [{{ column = '{column}', {tests} }}]"));
        let warnings = read("v", file.as_bytes()).unwrap().warnings;
        let expected = reason.map(|reason| {
                format!("v line 6, column 9: public.orders: no row satisfies the conditions over {column} ({reason}): the view shows no row of this table")
            });
        assert_eq!(warnings, Vec::from_iter(expected), "{tests}");
    }
}

#[test]
fn a_file_that_is_no_definitions_file_says_where_and_what_to_write() {
    for (file, expected) in [
        (
            "",
            "1:1: the file says nothing: begin with version = 1, and list each table as [[table]] with name and primary_key",
        ),
        (" # no tables yet\n", "1:1: the file says nothing"),
        ("version = 1\n", "2:1: the file names no table: add each as [[table]] with name and primary_key"),
        ("version = 1\ntable = []", "2:9: the file names no table: add each as [[table]] with name and primary_key"),
        (
            "version = 2\n[[table]]\nname = 'a'\nprimary_key = ['id']",
            "1:11: version is 2, and this function reads version 1: write version = 1, or deploy a later function",
        ),
        ("[[table]]\nname = 'a'\nprimary_key = ['id']", "1:1: the file has no version: begin with version = 1"),
        (
            "version = '1'\n[table]\nname = 'a'",
            "1:11: version is a string: write version = 1\n\
                 2:1: table is a table: write [[table]] with two brackets above each table",
        ),
        ("version = 1\ntable = [1]", "2:10: an entry of table is an integer: write each table as [[table]]"),
        (
            "version = 1\nversoin = 1\nfoo = 1\nkey = 1\n[[tables]]",
            "2:1: there is no key \"versoin\": write version\n\
                 3:1: there is no key \"foo\": the keys of the file are version, types, marks and table\n\
                 4:1: key belongs to a table: write it below the [[table]]\n\
                 5:3: there is no key \"tables\": write table\n\
                 5:11: the file names no table: add each as [[table]] with name and primary_key",
        ),
        (
            "version = 1\nx = = y\nz = ü",
            "2:5: this is no TOML: extra `=`, expected nothing, found =\n\
                 3:5: this is no TOML: string values must be quoted, expected literal string, found ü",
        ),
        (
            "version = 1\n[[table]]\nname = 'a'\nname = 'b'\nprimary_key = 1",
            "4:1: name stands twice here: remove one of the two\n\
                 5:15: public.a: primary_key is an integer: write primary_key = [\"id\"]",
        ),
        ("{ \"version\": 1 }", "1:1: this is no TOML"),
    ] {
        check(file, expected);
    }
    for (bytes, expected) in [
        (
            &b"version = 1\r\n# gr\xfcn"[..],
            "v line 2, column 5: byte 18 of the file, 0xfc, is no UTF-8: save the file as UTF-8",
        ),
        (b"\xef\xbb\xbfx\xff", "v line 1, column 2: byte 5 of the file, 0xff"),
        (b"\xff\xfev\0", "v line 1, column 1: byte 1 of the file, 0xff"),
    ] {
        let message = read("v", bytes).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn wrong_types_and_marks_are_named() {
    for (rest, expected) in [
        (
            "[types]\nnumeric = 'float'\njsonb = 1\nnumerics = 'string'\ntimestamp = 'milis'",
            "6:11: a numeric cannot stand as \"float\": write \"string\" or \"number\"\n\
                 7:9: jsonb is an integer: write jsonb = \"document\"\n\
                 8:1: there is no key \"numerics\": write numeric\n\
                 9:13: a timestamp cannot stand as \"milis\": write \"micros\", \"iso8601\", \"millis\" or \"seconds\"",
        ),
        (
            "[marks]\nprefix = ''\nprefx = 1",
            "6:10: prefix is \"\": write 1 to 32 letters, digits, _, - or ., as in prefix = \"__\"\n\
                 7:1: there is no key \"prefx\": write prefix",
        ),
        ("[marks]\nprefix = 'a#'", "6:10: prefix is \"a#\""),
        ("[marks]\nprefix = 'a23456789012345678901234567890123'", "6:10: prefix is"),
        ("[marks]\nprefix = 1", "6:10: prefix is an integer"),
    ] {
        check_table(rest, expected);
    }
    check(
        "version = 1\ntypes = 1\nmarks = 'x'\ntable = []",
        "2:9: types is an integer: write [types]\n\
                 3:9: marks is a string: write [marks] and below it prefix = \"__\"\n\
                 4:9: ",
    );
}

#[test]
fn a_table_needs_its_name_and_its_key() {
    for (entry, expected) in [
        (
            "",
            "2:1: the table has no name: write name = \"public.orders\"\n\
                 2:1: the table has no primary_key: write its columns in key order, as in primary_key = [\"id\"]",
        ),
        (
            "name = 3\nprimary_key = [3, 'id']",
            "3:8: name is an integer: write name = \"public.orders\"\n\
                 4:16: a value of primary_key is an integer: write primary_key = [\"id\"]",
        ),
        (
            "name = 'orders(id)'\nprimary_key = []",
            "3:8: \"orders(id)\": the name cannot be read: at character 7: expected the end: the columns of the key stand in primary_key, found '('\n\
                 4:15: \"orders(id)\": primary_key is empty: write its columns in key order",
        ),
        (
            "name = '\"or'\nprimary_key = ['id', 'id', '']",
            "3:8: \"\"or\": the name cannot be read: at character 1: the quotation mark is never closed\n\
                 4:22: \"\"or\": primary_key names id twice: remove one of the two\n\
                 4:28: \"\"or\": primary_key names a column without a name: write its name",
        ),
        (
            "name = 'a.b.c'\nprimary_key = ['id']",
            "3:8: \"a.b.c\": the name cannot be read: at character 4: expected the end: a table has a schema and a name, no database, found '.'",
        ),
        (
            "name = 'x-y'\nprimary_key = ['id']",
            "3:8: \"x-y\": the name cannot be read: at character 2: expected the end: other characters in a name need quotation marks, found '-'",
        ),
        (
            "name = 'x\"y'\nprimary_key = ['id']",
            "3:8: \"x\"y\": the name cannot be read: at character 2: expected the end; is a quotation mark missing",
        ),
        (
            "name = ''\nprimary_key = ['id']",
            "3:8: \"\": the name cannot be read: at character 1: expected a table's name, found the end",
        ),
        (
            "name = 'Größen'\nprimary_key = ['_tx_id']",
            "4:16: public.größen: the column _tx_id would be the attribute _tx_id, which the view keeps for itself: rename it, leave it out by except, or give the view's attributes another prefix: [marks] prefix = \"__\"",
        ),
        (
            "name = 'a'\nprimary_key = ['id']\nview = 'a b'\nversion = 1\nprimarykey = 1\nfoo = 1",
            "5:8: public.a: view is \"a b\": write a name of letters, digits, _, - and . alone\n\
                 6:1: public.a: version belongs to the whole file: write it above the first [[table]]\n\
                 7:1: public.a: there is no key \"primarykey\": write primary_key\n\
                 8:1: public.a: there is no key \"foo\": the keys of a table are name, primary_key, view, key, columns, only, except, rename, rows, attributes, group, hash and expires_at",
        ),
        (
            "name = 'a'\nprimary_key = ['id']\n[[table]]\nname = 'PUBLIC.A'\nprimary_key = ['id']\n[[table]]\nname = 'b.a'\nprimary_key = ['id']",
            "6:8: the table public.a is there again, as in line 2: remove one of the two",
        ),
    ] {
        check(&format!("version = 1\n[[table]]\n{entry}"), expected);
    }
}

#[test]
fn a_key_has_the_columns_of_the_primary_key_alone_each_once() {
    for (rest, expected) in [
        ("key = 'x'", "5:7: key is a string: write key = { pk = \"ORDER#{id}\" }"),
        (
            "key = { sk = '{id}', kp = 'x' }",
            "5:7: the key has no pk: write key = { pk = \"ORDER#{id}\" }\n\
                 5:22: there is no key \"kp\": write pk",
        ),
        (
            "key = { pk = 1, sk = '' }",
            "5:14: pk is an integer: write key\n\
                 5:23: the template is empty",
        ),
        (
            "key = { pk = 'CUSTOMER#{customer_id}', sk = '{id}' }",
            "5:24: pk names customer_id, which is no column of the primary key (id), and a delete carries no other: make the key of those alone, and query by customer_id through an index: attributes = { GSI1PK = \"CUSTOMER#{customer_id}\" }",
        ),
        (
            "key = { pk = '{id}', sk = 'AT#{placed_at}' }",
            "5:31: sk names placed_at, which is no column of the primary key (id), and a delete carries no other: make the key of those alone, and query by placed_at through an index: attributes = { GSI1SK = \"AT#{placed_at}\" }",
        ),
        (
            "key = { pk = '{idd}', sk = '{id}' }",
            "5:15: pk names idd, which is no column of the primary key (id): write {id}",
        ),
        (
            "key = { pk = 'ORDERS' }",
            "5:7: the key lacks id of the primary key, so that two rows could share an item: write {id} into pk or sk",
        ),
        ("key = { pk = '{id}', sk = 'x{id}' }", "5:29: the key has {id} twice: write each column once"),
        ("key = { pk = 'ü{id' }", "5:16: the brace is never closed: write a column as {name}"),
        ("key = { pk = 'x\t{id}}' }", "5:21: the brace closes nothing: write a brace of the text as }}"),
        ("key = { pk = \"x\\t{id}}\" }", "5:14: the brace closes nothing"),
        (
            "key = { pk = '{id:lower}' }",
            "5:15: a key cannot fold case, because two rows could then share an item: write {id}; an index attribute can have {id:lower}",
        ),
        ("key = { pk = '{id:10}' }", "5:15: {id:10} has no zero before the length: write {id:010}"),
        ("key = { pk = '{id:x}' }", "5:15: {id:x} has an unknown form"),
        (
            "columns = { id = 'uuid', n = 'bytea' }\nkey = { pk = '{id:010}#{n}#{m}' }",
            "6:15: id is uuid, and only a number can be padded: write {id}\n\
                 6:24: pk names n, which is no column of the primary key (id)\n\
                 6:28: pk names \"m\", which columns does not list: write \"n\", or add the column to columns with its type",
        ),
        (
            "columns = { id = 'bytea' }\nkey = { pk = '{id}' }",
            "6:15: id is bytea, and a document, an array or bytes cannot stand in a template: name another column",
        ),
        (
            "columns = { id = 'uuid' }\nhash = ['id']\nkey = { pk = '{id}' }",
            "6:9: hash names id, which belongs to the primary key, and the item's key shows its value: remove it from hash\n\
                 7:15: id is hashed",
        ),
        (
            &format!("key = {{ pk = '{}{{id}}' }}", "x".repeat(2049)),
            "5:14: the text of pk has 2049 bytes, and DynamoDB takes 2048: write a shorter one",
        ),
        (
            &format!("key = {{ pk = 'x', sk = '{}{{id}}' }}", "x".repeat(1025)),
            "5:24: the text of sk has 1025 bytes, and DynamoDB takes 1024",
        ),
    ] {
        check_table(rest, expected);
    }
    let of_two = |key: &str| format!("version = 1\n[[table]]\nname = 'a'\nprimary_key = ['x', 'y']\nkey = {key}");
    for (key, expected) in [
        (
            "{ pk = '{x}{y}' }",
            "5:18: public.a: no # stands between {x} and {y}, so that two rows could share an item: write {x}#{y}",
        ),
        ("{ pk = 'a#{x}-{y}#' }", "5:21: public.a: no # stands between {x} and {y}"),
        ("{ pk = '{x}', sk = 'z' }", "5:7: public.a: the key lacks y of the primary key"),
        (
            "{ pk = '{z}' }",
            "5:7: public.a: the key lacks x\n\
                 5:7: public.a: the key lacks y\n\
                 5:15: public.a: pk names z, which is no column of the primary key (x and y): write {x}",
        ),
    ] {
        check(&of_two(key), expected);
    }
    for key in ["{ pk = '{x}-#-{y}' }", "{ pk = '{y}', sk = '{x}' }", "{ pk = 'x', sk = '{x:03}#{y:010}' }"] {
        read("v", of_two(key).as_bytes()).unwrap();
    }
}

#[test]
fn columns_are_checked_wherever_they_are_named() {
    let columns = "columns = { id = 'uuid', email = 'text', total = 'numeric', data = 'jsonb', at = 'timestamptz', ok = 'bool' }\n";
    for (rest, expected) in [
        (
            "attributes = { A = 'x{emial}', B = '{nothing}' }",
            "6:22: attributes.A names \"emial\", which columns does not list: write \"email\", or add the column to columns with its type\n\
                 6:37: attributes.B names \"nothing\", which columns does not list: add it to columns with its type, or remove it here",
        ),
        (
            "attributes = { A = '{data}', B = '{email:010}', C = '{total:lower}', D = '{at:lower}', E = '{at:010}', F = '{ok:lower}' }",
            "6:21: data is jsonb, and a document\n\
                 6:35: email is text, and only a number can be padded: write {email}\n\
                 6:54: total is numeric, and only text has capitals to fold: write {total}\n\
                 6:75: at is timestamptz, and only text\n\
                 6:93: at is timestamptz, and only a number\n\
                 6:109: ok is bool, and only text",
        ),
        (
            "attributes = { A = 1, '' = 'x', B = '' }",
            "6:20: attributes.A is an integer: write A = \"CUSTOMER#{customer_id}\"\n\
                 6:23: an index attribute has no name\n\
                 6:38: the template is empty",
        ),
        (
            "attributes = ['A']",
            "6:14: attributes is an array: write attributes = { GSI1PK = \"CUSTOMER#{customer_id}\" }",
        ),
        (
            "hash = ['email']\nattributes = { A = '{email}' }",
            "7:21: email is hashed, and a template would show its value: remove it here; the attribute email of the item has the hash, and an index can have that",
        ),
        (
            "hash = ['at']\nexpires_at = 'at'",
            "7:14: expires_at names at, which is hashed, and the expiry would show its value",
        ),
        (
            "expires_at = 'total'",
            "6:14: expires_at names total, which is numeric: name a column of type timestamp or timestamptz",
        ),
        ("expires_at = 'nope'", "6:14: expires_at names \"nope\", which columns does not list"),
        ("expires_at = 1", "6:14: expires_at is an integer: write the name of a column"),
        (
            "only = ['email', 'email', 'Total', 1]",
            "6:18: only names email twice: remove one of the two\n\
                 6:27: only names \"Total\", which columns does not list: write \"total\"\n\
                 6:36: a value of only is an integer: write only = [\"street\", \"city\"]",
        ),
        (
            "except = 'email'\nonly = ['id']",
            "6:10: the table has only and except: remove one of the two\n\
                 6:10: except is a string: write except = [\"street\", \"city\"]",
        ),
        (
            "except = ['email']\nhash = ['email']\nrename = { email = 'mail' }\ngroup = { g = ['email'] }",
            "7:9: hash names email, which except leaves out: remove it from hash, or keep it in the item\n\
                 8:12: rename names email, which except leaves out\n\
                 9:16: group.g names email, which except leaves out",
        ),
        (
            "only = ['id']\nrename = { email = 'mail' }",
            "7:12: rename names email, which only does not name: remove it from rename, or keep it in the item",
        ),
        (
            "rename = { emai = 'x', total = 1, at = '' }",
            "6:12: rename names \"emai\", which columns does not list: write \"email\"\n\
                 6:32: rename.total is an integer: write total = \"newName\"\n\
                 6:40: the new name of at is empty: write at = \"newName\"",
        ),
        (
            "group = { g = [], h = ['email', 'at', 'at'], i = ['at'], j = 'at' }",
            "6:15: group.g is empty: write its columns, or remove the group\n\
                 6:39: group.h names at twice: remove one of the two\n\
                 6:51: group.i names at, which is in the group h too: remove one of the two\n\
                 6:62: group.j is a string: write j = [\"street\", \"city\"]",
        ),
        ("rows = [{ column = 'state', equals = 'x' }]", "6:20: rows names \"state\", which columns does not list"),
    ] {
        check_table(&format!("{columns}{rest}"), expected);
    }
}

#[test]
fn the_list_of_columns_is_checked() {
    for (rest, expected) in [
        (
            "hash = ['email']",
            "5:8: hash needs the list of the table's columns, or a renamed column would show its values: add columns = { email = \"text\", … }",
        ),
        ("except = ['']", "5:11: except names a column without a name: write its name"),
        ("columns = ['id']", "5:11: columns is an array: write columns = { id = \"uuid\", status = \"text\" }"),
        (
            "columns = { ib = 'uuid' }",
            "4:16: primary_key names id, which columns does not list: write \"ib\", or add id to columns with its type",
        ),
        (
            "columns = { other = 'uuid' }",
            "4:16: primary_key names id, which columns does not list: add it to columns with its type",
        ),
        ("columns = { id = 'uuid', id = 'text' }", "5:26: id stands twice here: remove one of the two"),
        (
            "columns = { id = 'uid', a = 'string', b = 'text[]', c = 1, d = {}, e = { type = 1, as = 2, is = 3 } }",
            "5:18: there is no type \"uid\": write \"uuid\"\n\
                 5:29: there is no type \"string\": write a type of PostgreSQL, such as text, uuid,\n\
                 5:43: there is no type \"text[]\"\n\
                 5:57: the column c is an integer: write its type, as in c = \"text\"\n\
                 5:64: the column \"d\" has no type: write { type = \"timestamptz\", … }\n\
                 5:81: the type is an integer: write e = \"text\"\n\
                 5:89: as is an integer: write { type = \"timestamptz\", as = \"iso8601\" }\n\
                 5:92: there is no key \"is\": write as",
        ),
        (
            "columns = { id = { type = 'uuid', as = 'string' }, d = { type = 'date', as = 'millis' } }",
            "5:40: a column of type uuid stands in one way only: leave `as` out\n\
                 5:78: a date cannot stand as \"millis\": write \"days\" or \"iso8601\"",
        ),
        (
            "[table.columns]\nid = 'uuid'\nexcept = ['x']",
            "7:10: the column except is an array: write its type, as in except = \"text\"; a key of the table must stand above [table.columns]",
        ),
    ] {
        check_table(rest, expected);
    }
}

#[test]
fn no_two_attributes_have_one_name() {
    for (rest, expected) in [
        (
            "except = ['x']\nattributes = { b = '{a}' }\nrename = { a = 'b', c = 'b' }",
            "6:16: the index attribute b and the renamed column c would be one attribute, \"b\": choose another name for one of them\n\
                 7:25: the renamed column c and the renamed column a would be one attribute, \"b\": choose another name for one of them",
        ),
        (
            "rename = { a = 'id' }",
            "5:16: the renamed column a and the column id would be one attribute, \"id\": choose another name, or leave the column id out of the item by except",
        ),
        ("attributes = { id = 'x' }", "5:16: the index attribute id and the column id would be one attribute"),
        ("attributes = { x = '{x}' }", "5:16: the index attribute x and the column x would be one attribute"),
        (
            "group = { id = ['a', 'b'], g = ['c', 'd'] }\nrename = { c = 'd' }\nattributes = { g = 'x' }",
            "5:11: the group id and the column id would be one attribute\n\
                 6:16: the renamed column c and the column d would be one member of the group g, \"d\": choose another name for one of them\n\
                 7:16: the index attribute g and the group g would be one attribute",
        ),
        (
            "rename = { a = '_ts_ns' }\ngroup = { _tx_id = ['b'] }\nattributes = { _deleted = 'x', _expires_at = 'x', _overflow = 'x' }",
            "5:16: the renamed column a would be the attribute _ts_ns, which the view keeps for itself: choose another name, or give the view's attributes another prefix: [marks] prefix = \"__\"\n\
                 6:11: the group _tx_id would be the attribute _tx_id, which the view keeps for itself: choose another name, or give the view's attributes another prefix: [marks] prefix = \"__\"\n\
                 7:16: the index attribute _deleted would be the attribute _deleted, which the view keeps for itself: choose another name, or give the view's attributes another prefix: [marks] prefix = \"__\"\n\
                 7:32: \n\
                 7:51: ",
        ),
        (
            "columns = { id = 'uuid', _deleted = 'boolean' }",
            "5:26: the column _deleted would be the attribute _deleted, which the view keeps for itself: rename it, leave it out by except, or give",
        ),
        (
            "rename = { a = '__deleted' }\n[marks]\nprefix = '__'",
            "5:16: the renamed column a would be the attribute __deleted, which the view keeps for itself: choose another name, or give the view's attributes another prefix: [marks] prefix = \"view_\"",
        ),
    ] {
        check_table(rest, expected);
    }
}

#[test]
fn conditions_are_checked() {
    for (rest, expected) in [
        (
            "rows = { column = 'a' }",
            "5:8: rows is a table: write rows = [{ column = \"status\", not_in = [\"draft\"] }]",
        ),
        (
            "rows = [3, { in = ['x'] }, { column = 1, in = ['x'] }, {}]",
            "5:9: a condition is an integer: write rows = [{ column = \"status\", not_in = [\"draft\"] }]\n\
                 5:12: the condition names no column: write rows = [{ column = \"status\", not_in = [\"draft\"] }]\n\
                 5:39: column is an integer: write column = \"status\"\n\
                 5:56: the condition names no column\n\
                 5:56: the condition tests nothing: add in, not_in, equals, is_null, at_least or below",
        ),
        (
            "rows = [{ column = 'a' }]",
            "5:9: the condition over a tests nothing: add in, not_in, equals, is_null, at_least or below",
        ),
        (
            "[[table.rows]]\ncolumn = 'a'\nin = 'x'\nequals = ['y']\nis_null = 1\nabsent = 'out'\nequal = 2\nlike = 'x%'",
            "7:6: in is a string: write in = ['x']\n\
                 8:10: equals of a takes one value: write in = ['y'], or one value\n\
                 9:11: is_null is an integer: write is_null = true or is_null = false\n\
                 10:10: absent is \"out\": write \"inside\", \"outside\", or leave it out\n\
                 11:1: there is no key \"equal\": write equals\n\
                 12:1: there is no key \"like\": the keys of a condition are column, in, not_in, equals, is_null, at_least, below and absent",
        ),
        (
            "rows = [{ column = 'a', in = [1, 'x'], absent = true }]",
            "5:34: the condition compares a with a string after values of another type: write values of one type, and the column's type in columns\n\
                 5:49: absent is a boolean: write absent = \"inside\" or absent = \"outside\"",
        ),
        (
            "rows = [{ column = 'a', at_least = 2026-01-01 }, { column = 'b', below = inf }, { column = 'c', equals = {} }]",
            "5:36: at_least compares a with 2026-01-01: write the column's type in columns too, as in columns = { placed_at = \"timestamptz\", … }\n\
                 5:74: below compares b with inf: write a finite number, or the column's type in columns\n\
                 5:106: equals compares c with {}: write a text, a number, true or false",
        ),
    ] {
        check_table(rest, expected);
    }
    for (kind, test, expected) in [
        ("integer", "equals = 'x'", "which is integer, with 'x': write a number, such as 100"),
        ("bigint", "below = inf", "which is bigint, with inf: write a number, such as 100"),
        ("numeric", "equals = true", "which is numeric, with true: write a number, such as 12.50"),
        ("numeric", "equals = '1e2000'", "which is numeric, with '1e2000': write a number"),
        ("text", "equals = 5", "which is text, with 5: write a text, such as \"draft\""),
        ("uuid", "equals = '5'", "which is uuid, with '5': write a UUID, such as \"0190f6f4-"),
        ("boolean", "equals = 'true'", "which is boolean, with 'true': write true or false, without quotation marks"),
        ("date", "below = '2026-02-30'", "which is date, with '2026-02-30': write a date, such as \"2026-01-31\""),
        (
            "time",
            "below = '24:00'",
            "which is time, with '24:00': write a time of at most six decimals, such as \"12:30:00\"",
        ),
        ("timetz", "below = '12:30+01:00'", "which is timetz, with '12:30+01:00': write a time in UTC"),
        (
            "timestamp",
            "below = 2026-01-31",
            "which is timestamp, with 2026-01-31: write a date and a time without a zone",
        ),
        (
            "timestamptz",
            "below = 2026-01-31T00:00:00",
            "which is timestamptz, with 2026-01-31T00:00:00: write a date and a time with a zone, of at most six decimals, such as \"2026-01-31T12:30:00Z\"",
        ),
    ] {
        let rest = format!("columns = {{ id = 'uuid', x = '{kind}' }}\nrows = [{{ column = 'x', {test} }}]");
        let (test, _) = test.split_once(' ').unwrap();
        check_table(&rest, &format!("6:{}: {test} compares x, {expected}", 28 + test.len()));
    }
    for kind in ["jsonb", "bytea", "interval", "oidvector"] {
        let rest = format!(
            "columns = {{ id = 'uuid', x = '{kind}' }}\nrows = [{{ column = 'x', in = [1, 2], is_null = false }}]"
        );
        check_table(
            &rest,
            &format!("6:30: in compares x, which is {kind}: write is_null, the only test for that type"),
        );
    }
}

#[test]
fn a_message_has_an_end() {
    let keys = (0..1_000).fold(String::new(), |keys, key| format!("{keys}no_key_{key} = 1\n"));
    let long = "x".repeat(10_000);
    let message = read("v", table(&format!("{keys}{long} = 1")).as_bytes()).unwrap_err().to_string();
    assert!(message.starts_with("v has 1001 faults, and these are the first:\n"), "{message}");
    assert_eq!(message.lines().count(), 501);
    let message = read("v", table(&format!("view = \"{long}\\n\"")).as_bytes()).unwrap_err().to_string();
    assert!(message.contains(&format!("view is \"{}…\": write", "x".repeat(80))), "{message}");
}

//! The templates of a table's key and of its index attributes.
//!
//! Invariants: a key has primary key columns alone, each once, so that two rows of a table never share an item, and a
//! delete has all of them; no template shows a hashed column.

use toml::de::DeTable;

use crate::definitions::file::columns::Columns;
use crate::definitions::file::faults::Faults;
use crate::definitions::file::reading::{Value, Written, members, start, table, text, unknown_key};
use crate::definitions::shape::KeyTemplates;
use crate::definitions::template::{self, Part, Placeholder, Template};
use crate::definitions::types::ColumnType;

const EXAMPLE: &str = "key = { pk = \"ORDER#{id}\" }";

/// DynamoDB's limits for the attributes of a key, in bytes.
const LONGEST_PARTITION_KEY: usize = 2048;
const LONGEST_SORT_KEY: usize = 1024;

/// A placeholder with its place in the file.
struct Use<'a> {
    name: Written<'a>,
    pad: bool,
    lower: bool,
}

/// A template whose columns are places in its uses.
struct Draft<'a> {
    parts: Vec<Part>,
    uses: Vec<Use<'a>>,
}

impl<'a> Draft<'a> {
    fn read(text: Written<'a>, faults: &mut Faults<'a>) -> Option<Self> {
        let mut uses: Vec<Use<'a>> = Vec::new();
        let read = template::parse(text.text, |named| {
            let name = Written::within(named.name, text.place(named.at));
            uses.push(Use { name, pad: named.pad.is_some(), lower: named.lower });
            uses.len() - 1
        });
        match read {
            Ok(Template { parts }) => Some(Self { parts, uses }),
            Err(fault) => {
                faults.add(text.place(fault.at), fault.to_string());
                None
            }
        }
    }

    /// The template with the places of its columns, if all of them have one.
    fn finish(mut self, places: &[Option<usize>]) -> Option<Template> {
        for part in &mut self.parts {
            if let Part::Column(Placeholder { column, .. }) = part {
                *column = places[*column]?;
            }
        }
        Some(Template { parts: self.parts })
    }
}

/// Reads `key`.
pub(super) fn key<'a>(
    value: &'a Value<'a>,
    columns: &mut Columns<'a>,
    faults: &mut Faults<'a>,
) -> Option<KeyTemplates> {
    let key = table(faults, "key", value, EXAMPLE)?;
    for (name, _) in members(key) {
        if !["pk", "sk"].contains(&name.text) {
            unknown_key(faults, name, "key", &["pk", "sk"]);
        }
    }
    if !key.contains_key("pk") {
        faults.add(start(value), format!("the key has no pk: write {EXAMPLE}"));
    }
    let mut seen = vec![false; columns.key];
    let mut of_role = |role| of_key(key, role, columns, &mut seen, faults);
    let (partition, sort) = (of_role("pk"), of_role("sk"));
    if let (Ok(partition), Ok(sort)) = (partition, sort) {
        for place in (0..seen.len()).filter(|place| !seen[*place]) {
            let name = columns.all[place].name;
            let message = format!(
                "the key lacks {name} of the primary key, so that two rows could share an item: write {{{name}}} into pk or sk"
            );
            faults.add(start(value), message);
        }
        return Some(KeyTemplates { partition: partition?, sort });
    }
    None
}

/// A template could not be read.
struct Unreadable;

fn of_key<'a>(
    key: &'a DeTable<'a>,
    role: &str,
    columns: &mut Columns<'a>,
    seen: &mut [bool],
    faults: &mut Faults<'a>,
) -> Result<Option<Template>, Unreadable> {
    let Some(value) = key.get(role) else { return Ok(None) };
    let written = text(faults, role, value, EXAMPLE).ok_or(Unreadable)?;
    let draft = Draft::read(written, faults).ok_or(Unreadable)?;
    let longest = if role == "pk" { LONGEST_PARTITION_KEY } else { LONGEST_SORT_KEY };
    let literals = draft.parts.iter().map(|part| if let Part::Literal(text) = part { text.len() } else { 0 });
    let bytes: usize = literals.sum();
    if bytes > longest {
        let message =
            format!("the text of {role} has {bytes} bytes, and DynamoDB takes {longest}: write a shorter one");
        faults.add(written.at, message);
    }
    separated(&draft, faults);
    let mut places = Vec::with_capacity(draft.uses.len());
    for placeholder in &draft.uses {
        let name = placeholder.name;
        let place = columns.known(name.text).filter(|place| *place < columns.key);
        match place {
            None => not_in_key(name, role, written, columns, faults),
            Some(place) if std::mem::replace(&mut seen[place], true) => {
                faults.add(name.at, format!("the key has {{{}}} twice: write each column once", name.text));
            }
            Some(_) => {}
        }
        if let Some(place) = place {
            if placeholder.lower {
                let name = name.text;
                let message = format!(
                    "a key cannot fold case, because two rows could then share an item: write {{{name}}}; an index attribute can have {{{name}:lower}}"
                );
                faults.add(placeholder.name.at, message);
            }
            fits(placeholder, place, columns, faults);
        }
        places.push(place);
    }
    Ok(draft.finish(&places))
}

/// Between two placeholders of a key stands a `#`, which no value has.
fn separated(draft: &Draft<'_>, faults: &mut Faults<'_>) {
    let mut before: Option<usize> = None;
    let mut between = String::new();
    for part in &draft.parts {
        match part {
            Part::Literal(text) => between.clone_from(text),
            Part::Column(Placeholder { column, .. }) => {
                if let Some(before) = before.filter(|_| !between.contains('#')) {
                    let (before, name) = (draft.uses[before].name.text, draft.uses[*column].name);
                    let message = format!(
                        "no # stands between {{{before}}} and {{{name}}}, so that two rows could share an item: write {{{before}}}#{{{name}}}",
                        name = name.text
                    );
                    faults.add(name.at, message);
                }
                before = Some(*column);
                between.clear();
            }
        }
    }
}

fn not_in_key<'a>(
    name: Written<'a>,
    role: &str,
    written: Written<'a>,
    columns: &mut Columns<'a>,
    faults: &mut Faults<'a>,
) {
    let is_unknown = columns.listed && columns.known(name.text).is_none();
    if is_unknown {
        columns.place(name, role, faults);
        return;
    }
    let key_names = columns.key_names();
    let found = format!("{role} names {}, which is no column of the primary key ({key_names})", name.text);
    let typing_error = if columns.listed {
        None
    } else {
        faults.nearest(name.text, columns.all[..columns.key].iter().map(|column| column.name))
    };
    let message = match typing_error {
        Some(near) => format!("{found}: write {{{near}}}"),
        None => format!(
            "{found}, and a delete carries no other: make the key of those alone, and query by {} through an index: attributes = {{ GSI1{} = {} }}",
            name.text,
            role.to_uppercase(),
            written.quoted(),
        ),
    };
    faults.add(name.at, message);
}

/// Reads the template of an index attribute.
pub(super) fn attribute<'a>(
    name: Written<'a>,
    value: &'a Value<'a>,
    columns: &mut Columns<'a>,
    faults: &mut Faults<'a>,
) -> Option<Template> {
    let what = format!("attributes.{}", name.text);
    let example = format!("{} = \"CUSTOMER#{{customer_id}}\"", name.text);
    let written = text(faults, &what, value, &example)?;
    let draft = Draft::read(written, faults)?;
    let mut places = Vec::with_capacity(draft.uses.len());
    for placeholder in &draft.uses {
        let place = columns.place(placeholder.name, &what, faults);
        if let Some(place) = place {
            fits(placeholder, place, columns, faults);
        }
        places.push(place);
    }
    draft.finish(&places)
}

/// Checks that a column can stand in a template in this form.
fn fits(placeholder: &Use<'_>, place: usize, columns: &Columns<'_>, faults: &mut Faults<'_>) {
    let Use { name, pad, lower } = placeholder;
    if columns.all[place].hashed {
        let message = format!(
            "{0} is hashed, and a template would show its value: remove it here; the attribute {0} of the item has the hash, and an index can have that",
            name.text
        );
        faults.add(name.at, message);
    }
    let Some(kind) = columns.all[place].kind else { return };
    let found = format!("{} is {}", name.text, kind.written);
    match kind.column_type {
        ColumnType::Json | ColumnType::Bytea | ColumnType::OidVector => {
            let message =
                format!("{found}, and a document, an array or bytes cannot stand in a template: name another column");
            faults.add(name.at, message);
        }
        ColumnType::Integer | ColumnType::Float | ColumnType::Numeric if !lower => {}
        ColumnType::Text if !pad => {}
        _ if *pad => faults.add(name.at, format!("{found}, and only a number can be padded: write {{{}}}", name.text)),
        _ if *lower => {
            faults.add(name.at, format!("{found}, and only text has capitals to fold: write {{{}}}", name.text));
        }
        _ => {}
    }
}

//! Templates of keys and index attributes, such as `ORDER#{id}`.

/// A template, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its parts, in their order; at least one. No two literals follow one another.
    pub parts: Vec<Part>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that stands as it is.
    Literal(String),
    /// The value of a column.
    Column(Placeholder),
}

/// The place of a column's value in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placeholder {
    /// The column, as a place in [`crate::definitions::shape::Shape::columns`].
    pub column: usize,
    /// The length to which a whole number is padded with zeros.
    pub pad: Option<usize>,
    /// Whether the text is folded to lower case.
    pub lower: bool,
}

impl Template {
    /// The text before the first placeholder.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// The placeholder, if the template is that alone.
    pub fn lone(&self) -> Option<Placeholder> {
        match self.parts[..] {
            [Part::Column(placeholder)] => Some(placeholder),
            _ => None,
        }
    }

    /// The placeholders, in their order.
    pub fn placeholders(&self) -> impl Iterator<Item = Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Column(placeholder) => Some(*placeholder),
        })
    }
}

/// A placeholder as a template's text has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// The column's name.
    pub name: &'a str,
    /// The place of its brace in the template's text, in bytes.
    pub at: usize,
    /// See [`Placeholder::pad`].
    pub pad: Option<usize>,
    /// See [`Placeholder::lower`].
    pub lower: bool,
}

/// Why the text of a template cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TemplateFault {
    /// The place in the template's text, in bytes.
    pub at: usize,
    /// What is wrong there.
    pub reason: TemplateReason,
}

/// What can be wrong in the text of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum TemplateReason {
    #[error("the template is empty: write text and columns in braces, as in \"ORDER#{{id}}\"")]
    Empty,
    #[error("the brace is never closed: write a column as {{name}}, and a brace of the text as {{{{")]
    OpenBrace,
    #[error("the brace closes nothing: write a brace of the text as }}}}")]
    StrayBrace,
    #[error("the braces hold no column: write its name into them, as in {{id}}")]
    NoName,
    #[error("the braces hold spaces beside the name: write {{{name}}}")]
    Spaces { name: String },
    #[error("{{{name}:{width}}} has no zero before the length: write {{{name}:0{width}}} to pad the number with zeros")]
    NoZero { name: String, width: usize },
    #[error(
        "{{{name}:{padding}}} has no length from 1 to {LONGEST_PADDING}: write {{{name}:010}} to pad the number to 10 digits"
    )]
    Padding { name: String, padding: String },
    #[error(
        "{{{name}:{option}}} has an unknown form: write {{{name}:010}} to pad a number to 10 digits, or {{{name}:lower}} for lower \
         case; a column with a colon or a brace in its name cannot stand in a template"
    )]
    UnknownForm { name: String, option: String },
}

/// The longest padding: DynamoDB's numbers have no more digits.
pub const LONGEST_PADDING: usize = 38;

/// Reads a template: text, columns in braces (`{name}`, `{name:010}`, `{name:lower}`), and `{{` and `}}` for braces of
/// the text. `resolve` gives the place of each column.
///
/// # Errors
/// The first thing that is wrong in the text.
pub fn parse<'a>(text: &'a str, mut resolve: impl FnMut(Named<'a>) -> usize) -> Result<Template, TemplateFault> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(brace) = text[at..].find(['{', '}']).map(|found| at + found) {
        literal.push_str(&text[at..brace]);
        let rest = &text[brace..];
        if let doubled @ ("{{" | "}}") = rest.get(..2).unwrap_or_default() {
            literal.push_str(&doubled[1..]);
            at = brace + 2;
            continue;
        }
        let fault = |reason| TemplateFault { at: brace, reason };
        let within = rest.strip_prefix('{').ok_or_else(|| fault(TemplateReason::StrayBrace))?;
        let end = within.find(['{', '}']).filter(|end| within[*end..].starts_with('}'));
        let within = &within[..end.ok_or_else(|| fault(TemplateReason::OpenBrace))?];
        let named = named(within, brace).map_err(fault)?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        let column = resolve(named);
        parts.push(Part::Column(Placeholder { column, pad: named.pad, lower: named.lower }));
        at = brace + within.len() + 2;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    if parts.is_empty() { Err(TemplateFault { at: 0, reason: TemplateReason::Empty }) } else { Ok(Template { parts }) }
}

/// Reads what stands between two braces.
fn named(within: &str, at: usize) -> Result<Named<'_>, TemplateReason> {
    let (name, option) = within.split_once(':').map_or((within, None), |(name, option)| (name, Some(option)));
    let trimmed = name.trim();
    if trimmed.is_empty() {
        return Err(TemplateReason::NoName);
    }
    if trimmed.len() < name.len() {
        return Err(TemplateReason::Spaces { name: trimmed.to_owned() });
    }
    let plain = Named { name, at, pad: None, lower: false };
    let name = name.to_owned();
    match option {
        None => Ok(plain),
        Some("lower") => Ok(Named { lower: true, ..plain }),
        Some(padding) if !padding.is_empty() && padding.bytes().all(|byte| byte.is_ascii_digit()) => {
            let width = padding.parse().ok().filter(|width| (1..=LONGEST_PADDING).contains(width));
            match width {
                None => Err(TemplateReason::Padding { name, padding: padding.to_owned() }),
                Some(width) if !padding.starts_with('0') => Err(TemplateReason::NoZero { name, width }),
                Some(width) => Ok(Named { pad: Some(width), ..plain }),
            }
        }
        Some(option) => Err(TemplateReason::UnknownForm { name, option: option.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template's parts as text again, with columns a, b and n at the places 0, 1 and 2.
    fn shown(text: &str) -> Result<Vec<String>, TemplateFault> {
        let template = parse(text, |named| "abn".find(named.name).unwrap())?;
        let show = |part: &Part| match part {
            Part::Literal(text) => format!("'{text}'"),
            Part::Column(Placeholder { column, pad, lower }) => {
                format!(
                    "{column}{}{}",
                    pad.map(|pad| format!(" to {pad}")).unwrap_or_default(),
                    ["", " lower"][usize::from(*lower)]
                )
            }
        };
        Ok(template.parts.iter().map(show).collect())
    }

    #[test]
    fn a_template_is_text_with_columns_in_braces() {
        for (text, parts) in [
            ("ORDER#{a}", &["'ORDER#'", "0"][..]),
            ("{a}", &["0"]),
            ("{a}{b}x", &["0", "1", "'x'"]),
            ("{n:010}-{a:lower}", &["2 to 10", "'-'", "0 lower"]),
            ("{n:038}{n:01}{n:0001}", &["2 to 38", "2 to 1", "2 to 1"]),
            ("{{a}}", &["'{a}'"]),
            ("{{{a}}}", &["'{'", "0", "'}'"]),
            ("Größe {a} ", &["'Größe '", "0", "' '"]),
            ("}}{{", &["'}{'"]),
        ] {
            assert_eq!(shown(text).unwrap(), parts, "{text}");
        }
    }

    #[test]
    fn a_fault_in_a_template_says_where_it_is_and_what_to_write() {
        for (text, at, expected) in [
            ("", 0, "the template is empty: write text and columns in braces, as in \"ORDER#{id}\""),
            ("x{a", 1, "never closed: write a column as {name}, and a brace of the text as {{"),
            ("x{", 1, "never closed"),
            ("x{a{b}", 1, "never closed"),
            ("ü{a}}", 5, "the brace closes nothing: write a brace of the text as }}"),
            ("}", 0, "closes nothing"),
            ("{}", 0, "hold no column: write its name into them, as in {id}"),
            ("{ :lower}", 0, "hold no column"),
            ("{ a}", 0, "spaces beside the name: write {a}"),
            ("{a:10}", 0, "{a:10} has no zero before the length: write {a:010}"),
            ("{a:039}", 0, "{a:039} has no length from 1 to 38: write {a:010}"),
            ("{a:00}", 0, "has no length"),
            ("{a:099999999999999999999}", 0, "has no length"),
            (
                "{a:upper}",
                0,
                "{a:upper} has an unknown form: write {a:010} to pad a number to 10 digits, or {a:lower} for",
            ),
            ("{a:}", 0, "unknown form"),
            ("{a:0x1}", 0, "unknown form"),
            ("{a:010:lower}", 0, "unknown form"),
        ] {
            let fault = shown(text).unwrap_err();
            assert!(fault.to_string().contains(expected), "{text:?} gave: {fault}");
            assert_eq!(fault.at, at, "{text:?}");
        }
    }
}

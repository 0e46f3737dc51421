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

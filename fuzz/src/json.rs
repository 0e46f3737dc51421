//! The checks' own JSON reader, so that they do not trust the library's. It keeps each number's text, all members of an
//! object including repeated ones, and the place of each value. It nests as deep as the text does.

use std::ops::Range;

/// A text of a JSON document; `None` for a text with half a surrogate pair, which is invalid.
pub type Text = Option<String>;

enum Kind {
    Null,
    Bool,
    Number,
    Text(Text),
    Array(Vec<usize>),
    Object(Vec<(Text, usize)>),
}

struct Node {
    kind: Kind,
    place: Range<usize>,
}

/// A parsed JSON text.
pub struct Document<'t> {
    text: &'t str,
    nodes: Vec<Node>,
}

/// A value of a document.
#[derive(Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document<'d>,
    node: usize,
}

/// The content of a value.
pub enum Is<'d> {
    Null,
    Bool(bool),
    /// The number's JSON text.
    Number(&'d str),
    Text(&'d Text),
    Array(Vec<Value<'d>>),
    Object(Vec<(&'d Text, Value<'d>)>),
}

impl<'d> Value<'d> {
    /// Its content.
    pub fn is(self) -> Is<'d> {
        let value = |node: &usize| Value { node: *node, ..self };
        match &self.document.nodes[self.node].kind {
            Kind::Null => Is::Null,
            Kind::Bool => Is::Bool(self.json() == "true"),
            Kind::Number => Is::Number(self.json()),
            Kind::Text(text) => Is::Text(text),
            Kind::Array(elements) => Is::Array(elements.iter().map(value).collect()),
            Kind::Object(members) => Is::Object(members.iter().map(|(name, node)| (name, value(node))).collect()),
        }
    }

    /// Its JSON text.
    pub fn json(self) -> &'d str {
        &self.document.text[self.place()]
    }

    /// Its place in the document's text.
    pub fn place(self) -> Range<usize> {
        self.document.nodes[self.node].place.clone()
    }

    /// Its text, if it is a text.
    pub fn text(self) -> Option<&'d str> {
        if let Is::Text(text) = self.is() { text.as_deref() } else { None }
    }

    /// The last member of this name, if the value is an object and the member is not null.
    pub fn member(self, name: &str) -> Option<Value<'d>> {
        let Is::Object(members) = self.is() else { return None };
        let (_, value) = members.into_iter().rfind(|(found, _)| found.as_deref() == Some(name))?;
        (!matches!(value.is(), Is::Null)).then_some(value)
    }
}

impl<'t> Document<'t> {
    /// Reads a text; `None` if it is not JSON.
    pub fn read(text: &'t str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        'values: loop {
            reader.white_space();
            let node = nodes.len();
            match open.last().map(|container| &mut nodes[*container].kind) {
                Some(Kind::Object(members)) => {
                    members.push((reader.string()?, node));
                    reader.white_space();
                    reader.accept(b':').then_some(())?;
                    reader.white_space();
                }
                Some(Kind::Array(elements)) => elements.push(node),
                _ => {}
            }
            let start = reader.at;
            let kind = reader.begin()?;
            let opens = matches!(kind, Kind::Array(_) | Kind::Object(_));
            nodes.push(Node { kind, place: start..reader.at });
            if opens {
                open.push(node);
                reader.white_space();
                if !matches!(reader.peek()?, b'}' | b']') {
                    continue;
                }
            }
            loop {
                reader.white_space();
                let Some(container) = open.last() else {
                    return (reader.at == text.len()).then_some(Self { text, nodes });
                };
                let container = &mut nodes[*container];
                if reader.accept(if matches!(container.kind, Kind::Array(_)) { b']' } else { b'}' }) {
                    container.place.end = reader.at;
                    open.pop();
                } else {
                    reader.accept(b',').then_some(())?;
                    continue 'values;
                }
            }
        }
    }

    /// The value of the whole text.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, node: 0 }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn accept(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Reads a value, or the beginning of an array or an object.
    fn begin(&mut self) -> Option<Kind> {
        match self.peek()? {
            b'[' => {
                self.at += 1;
                Some(Kind::Array(Vec::new()))
            }
            b'{' => {
                self.at += 1;
                Some(Kind::Object(Vec::new()))
            }
            b'"' => self.string().map(Kind::Text),
            b't' => self.word("true", Kind::Bool),
            b'f' => self.word("false", Kind::Bool),
            b'n' => self.word("null", Kind::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, kind: Kind) -> Option<Kind> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            kind
        })
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<Kind> {
        self.accept(b'-');
        if !self.accept(b'0') {
            self.digits()?;
        }
        if self.accept(b'.') {
            self.digits()?;
        }
        if self.accept(b'e') || self.accept(b'E') {
            let _ = self.accept(b'+') || self.accept(b'-');
            self.digits()?;
        }
        Some(Kind::Number)
    }

    /// Reads a string; `None` if it is not JSON.
    fn string(&mut self) -> Option<Text> {
        self.accept(b'"').then_some(())?;
        // UTF-16, like the escapes: this shows halves of surrogate pairs.
        let mut units: Vec<u16> = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|next| matches!(next, '"' | '\\' | '\0'..='\u{1f}'))?;
            units.extend(rest[..plain].encode_utf16());
            self.at += plain;
            if self.accept(b'"') {
                return Some(String::from_utf16(&units).ok());
            }
            self.accept(b'\\').then_some(())?;
            units.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Option<u16> {
        let next = self.peek()?;
        self.at += 1;
        Some(match next {
            b'"' | b'\\' | b'/' => next.into(),
            b'b' => 8,
            b't' => 9,
            b'n' => 10,
            b'f' => 12,
            b'r' => 13,
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
                u16::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        })
    }
}

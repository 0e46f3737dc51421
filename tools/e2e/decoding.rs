//! PostgreSQL's logical decoding. The messages of a replication slot (pgoutput, protocol 1) become the row changes of
//! each transaction.

use std::collections::HashMap;
use std::sync::Arc;

/// A column as its table was when the change was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The type's object id.
    pub type_id: u32,
}

/// A table as it was when the change was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub schema: String,
    pub name: String,
    pub columns: Vec<Column>,
}

/// A row's values as PostgreSQL's text, in the order of its columns.
pub type Row = Vec<Option<String>>;

/// An operation on a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Insert { new: Row },
    Update { old: Row, new: Row },
    Delete { old: Row },
}

/// A committed transaction with its operations in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub id: u32,
    /// Microseconds since the epoch.
    pub committed: i64,
    pub operations: Vec<(Arc<Relation>, Operation)>,
}

/// The microseconds from 1970 to 2000. PostgreSQL counts from 2000.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Reads the slot's messages.
#[derive(Debug, Default)]
pub struct Decoder {
    relations: HashMap<u32, Arc<Relation>>,
    transaction: Option<Transaction>,
}

impl Decoder {
    /// Takes in the next message. Returns a transaction if the message was its end.
    ///
    /// # Errors
    /// The message is not one of pgoutput's, or tells of something that the workload does not do.
    pub fn message(&mut self, message: &[u8]) -> Result<Option<Transaction>, String> {
        let kind = message.first().copied().map(char::from);
        let mut reader = Reader(message.get(1..).unwrap_or_default());
        match kind {
            Some('B') => {
                let _end = reader.take::<8>()?;
                let committed = i64::from_be_bytes(reader.take()?) + POSTGRES_EPOCH;
                let id = u32::from_be_bytes(reader.take()?);
                self.transaction = Some(Transaction { id, committed, operations: Vec::new() });
            }
            Some('C') => return Ok(Some(self.transaction.take().ok_or("a commit without a beginning")?)),
            Some('R') => {
                let id = u32::from_be_bytes(reader.take()?);
                let relation = reader.relation()?;
                self.relations.insert(id, Arc::new(relation));
            }
            Some('I') => {
                let relation = self.relation(&mut reader)?;
                let new = reader.new_row(None)?;
                self.push(relation, Operation::Insert { new })?;
            }
            Some('U') => {
                let relation = self.relation(&mut reader)?;
                let old = reader.old_row()?;
                let new = reader.new_row(Some(&old))?;
                self.push(relation, Operation::Update { old, new })?;
            }
            Some('D') => {
                let relation = self.relation(&mut reader)?;
                let old = reader.old_row()?;
                self.push(relation, Operation::Delete { old })?;
            }
            // The name of a type that is not the server's own, such as a domain, or the name of another writer.
            Some('Y' | 'O') => {}
            other => return Err(format!("expected a message of pgoutput, found {other:?}")),
        }
        Ok(None)
    }

    fn relation(&self, reader: &mut Reader) -> Result<Arc<Relation>, String> {
        let id = u32::from_be_bytes(reader.take()?);
        self.relations.get(&id).cloned().ok_or_else(|| format!("the relation {id} was not told of"))
    }

    fn push(&mut self, relation: Arc<Relation>, operation: Operation) -> Result<(), String> {
        let transaction = self.transaction.as_mut().ok_or("a change outside of a transaction")?;
        transaction.operations.push((relation, operation));
        Ok(())
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("the message is too short")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<char, String> {
        Ok(char::from(self.take::<1>()?[0]))
    }

    fn count(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn name(&mut self) -> Result<String, String> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or("a name without an end")?;
        let name = self.text(end)?;
        let _end = self.byte()?;
        Ok(name)
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        let (text, rest) = self.0.split_at_checked(length).ok_or("the message is too short")?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| "a text that is not UTF-8".to_owned())
    }

    fn relation(&mut self) -> Result<Relation, String> {
        let (schema, name) = (self.name()?, self.name()?);
        let _identity = self.byte()?;
        let mut columns = Vec::new();
        for _ in 0..self.count()? {
            let _flags = self.byte()?;
            let name = self.name()?;
            let type_id = u32::from_be_bytes(self.take()?);
            let _modifier = self.take::<4>()?;
            columns.push(Column { name, type_id });
        }
        Ok(Relation { schema, name, columns })
    }

    /// The whole old row. All tables have the replica identity FULL.
    fn old_row(&mut self) -> Result<Row, String> {
        match self.byte()? {
            'O' => self.row(None),
            other => Err(format!("expected the whole old row (REPLICA IDENTITY FULL), found {other:?}")),
        }
    }

    fn new_row(&mut self, old: Option<&Row>) -> Result<Row, String> {
        match self.byte()? {
            'N' => self.row(old),
            other => Err(format!("expected the new row, found {other:?}")),
        }
    }

    /// A row. If a large value (TOAST) has not changed, the message says only that, and the old row has the value.
    fn row(&mut self, old: Option<&Row>) -> Result<Row, String> {
        let mut row = Row::new();
        for place in 0..usize::from(self.count()?) {
            row.push(match self.byte()? {
                'n' => None,
                't' => {
                    let length = u32::from_be_bytes(self.take()?);
                    Some(self.text(usize::try_from(length).expect("32 bits"))?)
                }
                'u' => old.and_then(|old| old.get(place)).ok_or("an unchanged value without the old one")?.clone(),
                other => return Err(format!("expected a value of a row, found {other:?}")),
            });
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(id: u32) -> Vec<u8> {
        [b"B".as_slice(), &[0; 8], &1_000_000_i64.to_be_bytes(), &id.to_be_bytes()].concat()
    }

    fn relation() -> Vec<u8> {
        let column = |name: &str, type_id: u32| {
            [&[1], name.as_bytes(), &[0], type_id.to_be_bytes().as_slice(), &(-1_i32).to_be_bytes()].concat()
        };
        let head = [b"R".as_slice(), &7_u32.to_be_bytes(), b"Sales\0Order Lines\0f", &2_u16.to_be_bytes()].concat();
        [head, column("Order Id", 20), column("note", 25)].concat()
    }

    fn row(kind: u8, values: &[&str]) -> Vec<u8> {
        let mut row = vec![kind];
        row.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            match *value {
                "null" => row.push(b'n'),
                "unchanged" => row.push(b'u'),
                text => {
                    row.push(b't');
                    row.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    row.extend(text.as_bytes());
                }
            }
        }
        row
    }

    fn change(kind: u8, rows: &[Vec<u8>]) -> Vec<u8> {
        [vec![kind], 7_u32.to_be_bytes().to_vec(), rows.concat()].concat()
    }

    fn some(values: &[&str]) -> Row {
        values.iter().map(|value| (*value != "null").then(|| (*value).to_owned())).collect()
    }

    #[test]
    fn messages_become_a_transaction_with_its_operations() {
        let mut decoder = Decoder::default();
        for message in [
            begin(42),
            relation(),
            change(b'I', &[row(b'N', &["1", "null"])]),
            change(b'U', &[row(b'O', &["1", "long"]), row(b'N', &["2", "unchanged"])]),
            change(b'D', &[row(b'O', &["3", "ü"])]),
        ] {
            assert_eq!(decoder.message(&message), Ok(None));
        }
        let transaction = decoder.message(b"C").unwrap().unwrap();
        assert_eq!((transaction.id, transaction.committed), (42, POSTGRES_EPOCH + 1_000_000));
        let (tables, operations): (Vec<_>, Vec<_>) = transaction.operations.into_iter().unzip();
        let columns = [("Order Id", 20), ("note", 25)];
        let columns = columns.map(|(name, type_id)| Column { name: name.to_owned(), type_id }).to_vec();
        let expected = Relation { schema: "Sales".to_owned(), name: "Order Lines".to_owned(), columns };
        assert!(tables.iter().all(|table| **table == expected));
        assert_eq!(
            operations,
            [
                Operation::Insert { new: some(&["1", "null"]) },
                Operation::Update { old: some(&["1", "long"]), new: some(&["2", "long"]) },
                Operation::Delete { old: some(&["3", "ü"]) },
            ]
        );
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        let mut decoder = Decoder::default();
        for message in [b"".to_vec(), b"T".to_vec(), b"B".to_vec(), b"C".to_vec(), change(b'I', &[row(b'N', &["1"])])] {
            assert!(decoder.message(&message).is_err(), "{message:?}");
        }
        decoder.message(&begin(1)).unwrap();
        decoder.message(&relation()).unwrap();
        let key_alone = change(b'D', &[row(b'K', &["1", "null"])]);
        assert!(decoder.message(&key_alone).unwrap_err().contains("REPLICA IDENTITY FULL"));
        let no_old_value = change(b'I', &[row(b'N', &["1", "unchanged"])]);
        assert!(decoder.message(&no_old_value).is_err());
    }
}

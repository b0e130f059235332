//! What stands at a Parquet file's end: its columns, and where their pages lie.

use super::thrift::{Fault, Kind, Reader, expect};

/// The footer of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Footer {
    pub rows: i64,
    pub columns: Vec<Column>,
    pub groups: Vec<Group>,
    /// Free text by key.
    pub texts: Vec<(String, String)>,
}

/// A column of plain values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name, with those of the structures around it before it.
    pub path: Vec<String>,
    pub kind: Physical,
    /// Ways in which a value may be missing: its own, and those of the structures around it.
    pub optional: u32,
    /// Whether a row may have several values.
    pub repeated: bool,
}

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Physical {
    Int32,
    Int64,
    Bytes,
    /// Any other, with its name.
    Other(&'static str),
}

/// Some rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub rows: i64,
    /// In the order of the file's columns.
    pub chunks: Vec<Chunk>,
}

/// A column's values of a group of rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub codec: i64,
    pub values: i64,
    /// Bytes of its pages.
    pub bytes: i64,
    pub first_page: i64,
    pub dictionary: Option<i64>,
    /// In another file, or encrypted.
    pub elsewhere: bool,
    pub described: bool,
}

impl Footer {
    /// From its bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let mut footer = Self::default();
        let mut schema = Vec::new();
        Reader::new(bytes).fields(|r, id, kind| {
            match id {
                2 => {
                    expect(kind, Kind::List)?;
                    r.list(|r| {
                        schema.push(Element::read(r)?);
                        Ok(())
                    })?;
                }
                3 => {
                    expect(kind, Kind::Integer)?;
                    footer.rows = r.integer()?;
                }
                4 => {
                    expect(kind, Kind::List)?;
                    r.list(|r| {
                        footer.groups.push(Group::read(r)?);
                        Ok(())
                    })?;
                }
                5 => {
                    expect(kind, Kind::List)?;
                    r.list(|r| {
                        footer.texts.push(text(r)?);
                        Ok(())
                    })?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        footer.columns = columns(&schema)?;
        let whole = |group: &Group| group.chunks.len() == footer.columns.len();
        match footer.groups.iter().all(whole) {
            true => Ok(footer),
            false => Err(Fault::Damaged),
        }
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        let found = self.texts.iter().find(|(name, _)| name == key)?;
        Some(&found.1)
    }
}

/// An element of the schema: a tree, written node by node from its root.
#[derive(Default)]
struct Element {
    kind: Option<i64>,
    repetition: i64,
    name: String,
    children: i64,
}

impl Element {
    fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut element = Self::default();
        r.fields(|r, id, kind| {
            match (id, kind) {
                (1, Kind::Integer) => element.kind = Some(r.integer()?),
                (3, Kind::Integer) => element.repetition = r.integer()?,
                (4, Kind::Binary) => element.name = r.text()?,
                (5, Kind::Integer) => element.children = r.integer()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(element)
    }
}

fn columns(schema: &[Element]) -> Result<Vec<Column>, Fault> {
    /// A structure that is being walked through, and its children to come.
    struct Open {
        left: i64,
        optional: u32,
        repeated: bool,
    }
    let mut found = Vec::new();
    let (mut path, mut open): (Vec<String>, Vec<Open>) = Default::default();
    let (root, rest) = schema.split_first().ok_or(Fault::Damaged)?;
    open.push(Open {
        left: root.children,
        optional: 0,
        repeated: false,
    });
    for element in rest {
        while open.last().is_some_and(|o| o.left == 0) {
            open.pop();
            path.pop();
        }
        let depth = open.len();
        let parent = open.last_mut().ok_or(Fault::Damaged)?;
        if depth > 64 || parent.left < 0 {
            return Err(Fault::Damaged);
        }
        parent.left -= 1;
        let optional = parent.optional + u32::from(element.repetition == 1);
        let repeated = parent.repeated || element.repetition == 2;
        path.push(element.name.clone());
        if element.children > 0 {
            open.push(Open {
                left: element.children,
                optional,
                repeated,
            });
            continue;
        }
        found.push(Column {
            path: path.clone(),
            kind: match element.kind {
                Some(0) => Physical::Other("boolean"),
                Some(1) => Physical::Int32,
                Some(2) => Physical::Int64,
                Some(3) => Physical::Other("96-bit integer"),
                Some(4) => Physical::Other("float"),
                Some(5) => Physical::Other("double"),
                Some(6) => Physical::Bytes,
                Some(7) => Physical::Other("bytes of a fixed length"),
                _ => return Err(Fault::Damaged),
            },
            optional,
            repeated,
        });
        path.pop();
    }
    Ok(found)
}

impl Group {
    fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut group = Self::default();
        r.fields(|r, id, kind| {
            match (id, kind) {
                (1, Kind::List) => r.list(|r| {
                    group.chunks.push(Chunk::read(r)?);
                    Ok(())
                })?,
                (3, Kind::Integer) => group.rows = r.integer()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(group)
    }
}

impl Chunk {
    fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut chunk = Self::default();
        r.fields(|r, id, kind| {
            match (id, kind) {
                (1, Kind::Binary) => chunk.elsewhere |= !r.binary()?.is_empty(),
                (3, Kind::Struct) => {
                    chunk.described = true;
                    chunk.describe(r)?;
                }
                (8, _) => {
                    chunk.elsewhere = true;
                    return Ok(false);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(chunk)
    }

    fn describe(&mut self, r: &mut Reader<'_>) -> Result<(), Fault> {
        r.fields(|r, id, kind| {
            match (id, kind) {
                (4, Kind::Integer) => self.codec = r.integer()?,
                (5, Kind::Integer) => self.values = r.integer()?,
                (7, Kind::Integer) => self.bytes = r.integer()?,
                (9, Kind::Integer) => self.first_page = r.integer()?,
                (11, Kind::Integer) => self.dictionary = Some(r.integer()?),
                _ => return Ok(false),
            }
            Ok(true)
        })
    }
}

fn text(r: &mut Reader<'_>) -> Result<(String, String), Fault> {
    let (mut key, mut value) = (String::new(), String::new());
    r.fields(|r, id, kind| {
        match (id, kind) {
            (1, Kind::Binary) => key = r.text()?,
            (2, Kind::Binary) => value = r.text()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((key, value))
}

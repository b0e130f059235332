//! TensorFlow's frozen graphs (`GraphDef`), as far as weights need them: a reader of protocol buffers that knows a few fields and
//! passes over all others.
//!
//! Fields are those of TensorFlow's `graph.proto`, `node_def.proto`, `attr_value.proto`, `tensor.proto` and `tensor_shape.proto`. What is
//! read lies in the file's bytes; where a constant repeats one number, what it may grow to is bounded.

use std::collections::HashMap;

use crate::format::host::checked_numel;

/// A constant of the graph in float32.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    /// Sizes, slowest axis first.
    pub(super) shape: Vec<usize>,
    /// As many numbers.
    pub(super) values: Vec<f32>,
}

/// What a graph says of its weights.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Floating-point constants of the wanted names.
    pub(super) constants: HashMap<String, Constant>,
    /// What each batch norm adds to variances, and whether it scales.
    pub(super) norms: Vec<(f32, bool)>,
    /// How many nodes there are.
    pub(super) nodes: usize,
}

/// Numbers that a graph's constants may hold together. Inception has 24 million.
const MOST_NUMBERS: usize = 64 << 20;
/// Axes of a constant at most.
const MOST_AXES: usize = 8;

/// `DT_FLOAT` and `DT_HALF` of `types.proto`.
const FLOAT: u64 = 1;
const HALF: u64 = 19;

/// Why a graph can't be read; completes a sentence that begins with the file's name.
type Fails<T> = Result<T, String>;

/// One field's value.
#[derive(Clone, Copy)]
enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    /// Of 64 bits, which nothing here needs.
    Fixed64,
    Bytes(&'a [u8]),
}

/// Reads the fields of a message.
struct Message<'a>(&'a [u8]);

fn damaged<T>(what: &str) -> Fails<T> {
    Err(format!(
        "its graph is cut off or damaged ({what}); get it again"
    ))
}

impl<'a> Message<'a> {
    fn varint(&mut self) -> Fails<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some((&byte, rest)) = self.0.split_first() else {
                return damaged("a number ends in the middle");
            };
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        damaged("a number is too long")
    }

    fn take(&mut self, n: u64) -> Fails<&'a [u8]> {
        let split = usize::try_from(n).ok();
        match split.and_then(|n| self.0.split_at_checked(n)) {
            Some((head, rest)) => {
                self.0 = rest;
                Ok(head)
            }
            None => damaged("a field reaches beyond the end"),
        }
    }

    /// The next field and its number; `None` at the end.
    fn next(&mut self) -> Fails<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let n = self.varint()?;
                Field::Bytes(self.take(n)?)
            }
            5 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Field::Fixed32(u32::from_le_bytes(bytes))
            }
            _ => return damaged("a field of an unknown kind"),
        };
        Ok(Some((tag >> 3, value)))
    }
}

/// Whether a file that begins so is probably a graph: its first field is a node, whose first field is a name of printable letters.
pub(super) fn is_graph(head: &[u8]) -> bool {
    let mut file = Message(head);
    // The node may be longer than what was read of it.
    if head.first() != Some(&0x0a) || file.varint().is_err() || file.varint().is_err() {
        return false;
    }
    match file.next() {
        Ok(Some((1, Field::Bytes(name)))) => {
            !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
        }
        _ => false,
    }
}

/// Reads a graph's constants of the names that are `wanted`, and its batch norms.
pub(super) fn read(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Fails<Graph> {
    let (mut graph, mut left) = (Graph::default(), MOST_NUMBERS);
    let mut file = Message(bytes);
    while let Some((number, value)) = file.next()? {
        let (1, Field::Bytes(node)) = (number, value) else {
            continue;
        };
        graph.nodes += 1;
        read_node(&mut graph, node, &wanted, &mut left)?;
    }
    Ok(graph)
}

fn read_node(
    graph: &mut Graph,
    node: &[u8],
    wanted: &impl Fn(&str) -> bool,
    left: &mut usize,
) -> Fails<()> {
    let (mut name, mut op, mut attributes) = (&b""[..], &b""[..], Vec::new());
    let mut fields = Message(node);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Field::Bytes(text)) => name = text,
            (2, Field::Bytes(text)) => op = text,
            (5, Field::Bytes(entry)) => attributes.push(entry),
            _ => {}
        }
    }
    let name = String::from_utf8_lossy(name);
    if op == b"Const" && wanted(&name) {
        for entry in attributes {
            let (b"value", Some(tensor)) = attribute(entry, 8)? else {
                continue;
            };
            let Field::Bytes(tensor) = tensor else {
                return damaged("a constant without a value");
            };
            let Some(constant) = read_tensor(tensor, &name, left)? else {
                continue;
            };
            if graph.constants.insert(name.to_string(), constant).is_some() {
                return Err(format!("holds the constant {name:?} twice; get it again"));
            }
        }
    } else if op == b"BatchNormWithGlobalNormalization" {
        let (mut epsilon, mut scales) = (0.0, false);
        for entry in attributes {
            match (attribute(entry, 4)?, attribute(entry, 5)?) {
                ((b"variance_epsilon", Some(Field::Fixed32(bits))), _) => {
                    epsilon = f32::from_bits(bits);
                }
                (_, (b"scale_after_normalization", Some(Field::Varint(flag)))) => {
                    scales = flag != 0;
                }
                _ => {}
            }
        }
        graph.norms.push((epsilon, scales));
    }
    Ok(())
}

/// An attribute's name, and its value where that is of the wanted kind (a field of `AttrValue`).
fn attribute(entry: &[u8], kind: u64) -> Fails<(&[u8], Option<Field<'_>>)> {
    let (mut key, mut found) = (&b""[..], None);
    let mut fields = Message(entry);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Field::Bytes(text)) => key = text,
            (2, Field::Bytes(value)) => {
                let mut values = Message(value);
                while let Some((number, value)) = values.next()? {
                    if number == kind {
                        found = Some(value);
                    }
                }
            }
            _ => {}
        }
    }
    Ok((key, found))
}

/// A tensor in float32; `None` where its numbers are no floating-point ones of 16 or 32 bits.
fn read_tensor(tensor: &[u8], name: &str, left: &mut usize) -> Fails<Option<Constant>> {
    let (mut dtype, mut shape) = (0, Vec::new());
    let (mut content, mut listed) = (None, Vec::new());
    let mut fields = Message(tensor);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Field::Varint(kind)) => dtype = kind,
            (2, Field::Bytes(sizes)) => shape = read_shape(sizes, name)?,
            (4, Field::Bytes(bytes)) => content = Some(bytes),
            (5, Field::Fixed32(bits)) => listed.push(f32::from_bits(bits)),
            // The same, packed.
            (5, Field::Bytes(bytes)) => {
                let numbers = bytes.as_chunks::<4>().0;
                listed.extend(numbers.iter().map(|&b| f32::from_le_bytes(b)));
            }
            _ => {}
        }
    }
    if !matches!(dtype, FLOAT | HALF) {
        return Ok(None);
    }
    let count = checked_numel(&shape);
    let Some((count, rest)) = count.and_then(|n| Some((n, left.checked_sub(n)?))) else {
        return Err(format!(
            "its constant {name:?} has the shape {shape:?}, which is more than Inception needs; it is another graph, or damaged"
        ));
    };
    *left = rest;
    let values = match (content, dtype) {
        (Some(bytes), FLOAT) if bytes.len() == 4 * count => {
            let numbers = bytes.as_chunks::<4>().0;
            numbers.iter().map(|&b| f32::from_le_bytes(b)).collect()
        }
        (Some(bytes), HALF) if bytes.len() == 2 * count => {
            let numbers = bytes.as_chunks::<2>().0;
            let half = |&b| half::f16::from_le_bytes(b).to_f32();
            numbers.iter().map(half).collect()
        }
        // The last number stands for all that are left out.
        (None, FLOAT) if !listed.is_empty() && listed.len() <= count => {
            let last = listed[listed.len() - 1];
            listed.resize(count, last);
            listed
        }
        _ => {
            return Err(format!(
                "its constant {name:?} of shape {shape:?} has not as many numbers; the file is damaged: get it again"
            ));
        }
    };
    Ok(Some(Constant { shape, values }))
}

fn read_shape(sizes: &[u8], name: &str) -> Fails<Vec<usize>> {
    let (mut shape, mut fields) = (Vec::new(), Message(sizes));
    while let Some((number, value)) = fields.next()? {
        let (2, Field::Bytes(axis)) = (number, value) else {
            continue;
        };
        let (mut size, mut parts) = (0, Message(axis));
        while let Some((number, value)) = parts.next()? {
            if let (1, Field::Varint(n)) = (number, value) {
                size = n;
            }
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if shape.len() == MOST_AXES {
            return Err(format!(
                "its constant {name:?} has more than {MOST_AXES} axes; it is another graph, or damaged"
            ));
        }
        shape.push(size);
    }
    Ok(shape)
}

//! Files of networks, made for tests.

use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::names;
use crate::format::{HostTensor, StateDict};
use crate::model::inception::Inception;
use crate::model::state::expected;

/// Weights by a formula, under the names of the PyTorch ports: of one value in seventeen, so that tensors are told apart.
pub(super) fn formula() -> StateDict {
    let net = Inception::new().unwrap();
    let mut dict = StateDict::new();
    for (at, (name, shape)) in expected(&net.params).into_iter().enumerate() {
        let values = |from: f32, n: usize| -> Vec<f32> {
            (0..n)
                .map(|i| from + ((i * 7 + at) % 17) as f32 / 64.0)
                .collect()
        };
        match name.strip_suffix(".conv.bias") {
            None => {
                let n = shape.iter().product();
                dict.insert(
                    name,
                    HostTensor::from_f32(&shape, &values(-0.125, n)).unwrap(),
                );
            }
            Some(layer) => {
                let n = shape[0];
                for (part, from) in [
                    ("weight", 1.0),
                    ("bias", -0.1),
                    ("running_mean", 0.2),
                    ("running_var", 0.5),
                ] {
                    // The scale is one, as in the published network: NVIDIA's program has none.
                    let values = match part {
                        "weight" => vec![1.0; n],
                        _ => values(from, n),
                    };
                    let tensor = HostTensor::from_f32(&[n], &values).unwrap();
                    dict.insert(format!("{layer}.bn.{part}"), tensor);
                }
            }
        }
    }
    dict
}

/// A field of a message of protocol buffers that holds bytes.
pub(super) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend(bytes);
    out
}

pub(super) fn varint(number: u8, value: u64) -> Vec<u8> {
    let mut out = vec![number << 3];
    let mut n = value;
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn attribute(key: &str, value: &[u8]) -> Vec<u8> {
    field(5, &[field(1, key.as_bytes()), field(2, value)].concat())
}

pub(super) fn node(name: &str, op: &str, attributes: &[u8]) -> Vec<u8> {
    let name = field(1, name.as_bytes());
    field(
        1,
        &[
            &name,
            &field(2, op.as_bytes()),
            &field(3, b"input"),
            attributes,
        ]
        .concat(),
    )
}

pub(super) fn constant(name: &str, shape: &[usize], content: &[u8]) -> Vec<u8> {
    let axes: Vec<u8> = shape
        .iter()
        .flat_map(|&n| field(2, &varint(1, n as u64)))
        .collect();
    let tensor = [varint(1, 1), field(2, &axes), content.to_vec()].concat();
    let attributes = [
        attribute("dtype", &varint(6, 1)),
        attribute("value", &field(8, &tensor)),
    ];
    node(name, "Const", &attributes.concat())
}

pub(super) fn norm(name: &str, epsilon: f32, scales: u64) -> Vec<u8> {
    let epsilon = [&[4 << 3 | 5], epsilon.to_le_bytes().as_slice()].concat();
    let attributes = [
        attribute("variance_epsilon", &epsilon),
        attribute("scale_after_normalization", &varint(5, scales)),
    ];
    node(
        name,
        "BatchNormWithGlobalNormalization",
        &attributes.concat(),
    )
}

pub(super) fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The graph of these weights as TensorFlow lays it out.
pub(super) fn graph(dict: &StateDict) -> Vec<u8> {
    let mut out = node("DecodeJpeg/contents", "Const", &[]);
    let of = |name: String| dict.get(&name).unwrap();
    for (ours, scope) in names::layers() {
        let weight = of(format!("{ours}.conv.weight"));
        let [o, i, h, w] = weight.shape[..].try_into().unwrap();
        let values = weight.to_f32_vec();
        let mut turned = Vec::with_capacity(values.len());
        for at in 0..h * w {
            for input in 0..i {
                turned.extend((0..o).map(|output| values[(output * i + input) * h * w + at]));
            }
        }
        let name = format!("{scope}/conv2d_params");
        out.extend(constant(&name, &[h, w, i, o], &field(4, &le(&turned))));
        for (part, name) in [
            ("bias", "beta"),
            ("running_mean", "moving_mean"),
            ("running_var", "moving_variance"),
        ] {
            let values = of(format!("{ours}.bn.{part}")).to_f32_vec();
            let name = format!("{scope}/batchnorm/{name}");
            out.extend(constant(&name, &[o], &field(4, &le(&values))));
        }
        // One number that stands for all.
        let one = [&[5 << 3 | 5], 1f32.to_le_bytes().as_slice()].concat();
        out.extend(constant(&format!("{scope}/batchnorm/gamma"), &[o], &one));
        out.extend(norm(&format!("{scope}/batchnorm"), 0.001, 1));
    }
    let fc = of("fc.weight".into()).to_f32_vec();
    let turned: Vec<f32> = (0..2048)
        .flat_map(|i| (0..1008).map(move |o| (i, o)))
        .map(|(i, o)| fc[o * 2048 + i])
        .collect();
    out.extend(constant(
        "softmax/weights",
        &[2048, 1008],
        &field(4, &le(&turned)),
    ));
    let bias = of("fc.bias".into()).to_f32_vec();
    out.extend(constant("softmax/biases", &[1008], &field(5, &le(&bias))));
    out
}

/// NVIDIA's program of these weights: modules in modules, as `torch.jit.save` pickles them.
pub(super) fn program(dict: &StateDict) -> Vec<u8> {
    struct Pickle<'a>(Vec<u8>, Vec<&'a [u8]>);
    impl<'a> Pickle<'a> {
        fn text(&mut self, text: &str) {
            self.0.push(b'X');
            self.0.extend((text.len() as u32).to_le_bytes());
            self.0.extend(text.as_bytes());
        }
        fn int(&mut self, n: usize) {
            self.0.push(b'J');
            self.0.extend((n as u32).to_le_bytes());
        }
        fn open(&mut self) {
            self.0
                .extend(b"c__torch__.torch_utils.___torch_mangle_3\nLayer\n)\x81}(");
            self.text("training");
            self.0.push(0x89);
        }
        fn close(&mut self) {
            self.0.extend(b"ub");
        }
        fn tensor(&mut self, name: &str, tensor: &'a HostTensor) {
            self.text(name);
            self.0.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            self.text("storage");
            self.0.extend(b"ctorch\nFloatStorage\n");
            self.text(&self.1.len().to_string());
            self.text("cpu");
            self.int(tensor.numel());
            self.0.extend(b"tQK\0(");
            tensor.shape.iter().for_each(|&n| self.int(n));
            self.0.extend(b"t(");
            for axis in 0..tensor.shape.len() {
                self.int(tensor.shape[axis + 1..].iter().product());
            }
            self.0.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
            self.1.push(&tensor.data);
        }
    }
    let mut p = Pickle(b"\x80\x02".to_vec(), vec![]);
    p.open();
    p.text("layers");
    p.open();
    let mut inside: Vec<String> = vec![];
    for (ours, scope) in names::layers() {
        // Towers are modules but in the last two blocks.
        let parts: Vec<String> = match scope.split_once('/') {
            Some((block @ ("mixed_9" | "mixed_10"), rest)) => {
                vec![block.to_owned(), rest.replace('/', "_")]
            }
            _ => scope.split('/').map(str::to_owned).collect(),
        };
        let (layer, around) = parts.split_last().unwrap();
        let common = inside
            .iter()
            .zip(around)
            .take_while(|(a, b)| a == b)
            .count();
        for _ in common..inside.len() {
            p.close();
        }
        for name in &around[common..] {
            p.text(name);
            p.open();
        }
        inside = around.to_vec();
        p.text(layer);
        p.open();
        for (theirs, part) in [
            ("weight", "conv.weight"),
            ("beta", "bn.bias"),
            ("mean", "bn.running_mean"),
            ("var", "bn.running_var"),
        ] {
            p.tensor(theirs, dict.get(&format!("{ours}.{part}")).unwrap());
        }
        p.close();
    }
    for _ in 0..=inside.len() {
        p.close();
    }
    p.text("output");
    p.open();
    for part in ["weight", "bias"] {
        p.tensor(part, dict.get(&format!("fc.{part}")).unwrap());
    }
    p.close();
    p.close();
    p.0.push(b'.');
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut put = |name: String, bytes: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    put("inception/data.pkl".into(), &p.0);
    put("inception/constants.pkl".into(), b"\x80\x02).");
    for (key, data) in p.1.iter().enumerate() {
        put(format!("inception/data/{key}"), data);
    }
    zip.finish().unwrap().into_inner()
}

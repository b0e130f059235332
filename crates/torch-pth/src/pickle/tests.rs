//! What the pickle reader accepts, what it refuses, and what it survives.

use proptest::prelude::*;

use super::*;

fn read(parts: &[&[u8]]) -> Result<Value> {
    from_bytes(&[&[0x80, 2], parts.concat().as_slice(), b"."].concat())
}

fn refused(parts: &[&[u8]]) -> String {
    read(parts).unwrap_err().to_string()
}

fn tensor(shape: &[usize], key: &str) -> Value {
    let numel = shape.iter().product::<usize>() as u64;
    Value::Tensor(std::sync::Arc::new(TensorRef::whole(
        Storage {
            dtype: DType::F32,
            key: key.into(),
            numel,
        },
        shape,
    )))
}

/// A value with one of everything.
fn everything() -> Value {
    let mut state = Dict::from_pairs([("w", tensor(&[2, 3], "0")), ("b", tensor(&[], "1"))]);
    state.ordered = true;
    let versions = Dict::from_pairs([(
        "",
        Value::Dict(Dict::from_pairs([("version", Value::Int(1))])),
    )]);
    state.attrs.push((
        "_metadata".into(),
        Value::Dict(Dict {
            ordered: true,
            ..versions
        }),
    ));
    let ints = [
        0,
        255,
        256,
        65535,
        65536,
        -1,
        i64::from(i32::MIN),
        i64::MAX,
        i64::MIN,
    ]
    .map(Value::Int);
    let odd_keys = Dict {
        items: vec![
            (Value::Int(3), Value::None),
            (Value::Tuple(vec![Value::Bool(true)]), Value::Bool(false)),
        ],
        ..Dict::default()
    };
    Value::Dict(Dict::from_pairs([
        ("state", Value::Dict(state)),
        ("ints", Value::List(ints.to_vec())),
        (
            "floats",
            Value::Tuple([0.1, -0.0, f64::INFINITY].map(Value::Float).to_vec()),
        ),
        ("odd", Value::Dict(odd_keys)),
        ("text", Value::str("\ntorch\nFloatStorage\n")),
        ("same text", Value::str("w")),
        ("bytes", Value::Bytes(vec![0, 127, 255].into())),
        ("set", Value::Set(vec![Value::Int(1)])),
        (
            "empty",
            Value::List(vec![
                Value::Tuple(vec![]),
                Value::List(vec![]),
                Value::Dict(Dict::default()),
            ]),
        ),
        ("dtype", Value::DType(DType::BF16)),
    ]))
}

#[test]
fn what_is_written_is_read_back() {
    let value = everything();
    assert_eq!(from_bytes(&to_bytes(&value).unwrap()).unwrap(), value);
}

#[test]
fn later_protocols_are_read() {
    // Protocol 4 with a frame, short texts, MEMOIZE, STACK_GLOBAL and a set.
    let p = b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\x8c\x01a\x8f(K\x01K\x02\x90s.";
    let Value::Dict(d) = from_bytes(p).unwrap() else {
        panic!()
    };
    assert!(d.ordered);
    assert_eq!(
        d.get("a"),
        Some(&Value::Set(vec![Value::Int(1), Value::Int(2)]))
    );
    assert_eq!(
        from_bytes(b"\x80\x05\x96\x02\0\0\0\0\0\0\0hi.").unwrap(),
        Value::Bytes(b"hi".as_slice().into())
    );
}

#[test]
fn numpy_numbers_are_read() {
    let dtype =
        b"cnumpy\ndtype\n(U\x02f8\x89\x88tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb";
    let bytes = b"C\x08\0\0\0\0\0\0\xf8\x3f";
    assert_eq!(
        read(&[b"cnumpy.core.multiarray\nscalar\n", dtype, bytes, b"\x86R"]).unwrap(),
        Value::Float(1.5)
    );
}

#[test]
fn functions_off_the_list_are_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("x", "\u{1b}[2J"),
    ] {
        let text = refused(&[format!("c{module}\n{name}\n").as_bytes(), b"(U\x02lstR"]);
        assert!(
            text.contains(&format!("{module}.{}", name.escape_debug())),
            "{text}"
        );
        let (m, n) = (module.len() as u8, name.len() as u8);
        let text = refused(&[
            &[0x8c, m],
            module.as_bytes(),
            &[0x8c, n],
            name.as_bytes(),
            b"\x93)R",
        ]);
        assert!(
            text.contains("not on the list") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
    assert!(refused(&[b"U\x01a)R"]).contains("not a function"));
}

#[test]
fn tensors_must_stay_inside_their_storage() {
    let storage = |n: &[u8]| {
        [
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu",
            n,
            b"tQ",
        ]
        .concat()
    };
    let make = |numel: &[u8], offset: &[u8], shape: &[u8], stride: &[u8]| {
        let head = b"ctorch._utils\n_rebuild_tensor_v2\n(";
        read(&[
            head,
            &storage(numel),
            offset,
            shape,
            stride,
            b"\x89ccollections\nOrderedDict\n)RtR",
        ])
    };
    let long = |v: i64| [b"\x8a\x08".as_slice(), &v.to_le_bytes()].concat();
    let pair = |a: i64, b: i64| [long(a), long(b), vec![0x86]].concat();
    assert!(make(b"K\x06", b"K\0", &pair(2, 3), &pair(3, 1)).is_ok());
    assert!(make(b"K\x06", b"K\0", &pair(3, 2), &pair(1, 3)).is_ok());
    assert!(make(b"K\x06", b"K\x06", &pair(0, 3), &pair(3, 1)).is_ok());
    assert!(
        make(
            b"K\x06",
            b"K\x05",
            &pair(i64::MAX, 0),
            &pair(i64::MAX, i64::MAX)
        )
        .is_ok()
    );
    for (numel, offset, shape, stride) in [
        (6, 1, pair(2, 3), pair(3, 1)),
        (6, 0, pair(2, 3), pair(4, 1)),
        (6, 7, pair(0, 3), pair(3, 1)),
        (6, -1, pair(2, 3), pair(3, 1)),
        (6, 0, pair(-2, 3), pair(3, 1)),
        (6, 0, pair(2, 3), pair(-3, 1)),
        (6, 0, pair(2, i64::MAX), pair(3, 1)),
        (6, 0, pair(i64::MAX, i64::MAX), pair(0, 0)),
        (6, 0, pair(2, 2), pair(i64::MAX, i64::MAX)),
        (6, i64::MAX, pair(2, 2), pair(i64::MAX, i64::MAX)),
        (i64::MAX, 0, pair(2, 2), pair(1, 1)),
        (-1, 0, pair(0, 0), pair(1, 1)),
        (6, 0, long(3), pair(1, 1)),
        (6, 0, vec![b')'], pair(1, 1)),
    ] {
        let got = make(&long(numel), &long(offset), &shape, &stride);
        assert!(
            got.is_err(),
            "{numel} {offset} {shape:?} {stride:?}: {got:?}"
        );
    }
}

#[test]
fn strided_views_are_gathered_in_row_major_order() {
    let storage = Arc::new(Storage {
        dtype: DType::U8,
        key: "0".into(),
        numel: 12,
    });
    let bytes: Vec<u8> = (0..12).collect();
    let view = |offset, shape: &[i64], stride: &[i64]| {
        TensorRef::new(storage.clone(), offset, shape, stride)
            .unwrap()
            .gather(&bytes)
    };
    assert_eq!(view(0, &[3, 4], &[4, 1]), bytes);
    assert_eq!(
        view(0, &[4, 3], &[1, 4]),
        [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    );
    assert_eq!(view(5, &[2, 2], &[4, 2]), [5, 7, 9, 11]);
    assert_eq!(view(3, &[2, 3], &[0, 1]), [3, 4, 5, 3, 4, 5]);
    assert_eq!(view(2, &[1, 2, 1], &[99, 1, 77]), [2, 3]);
    assert_eq!(view(7, &[], &[]), [7]);
    assert_eq!(view(7, &[2, 0], &[1, 1]), [0u8; 0]);
}

#[test]
fn cycles_and_deep_nesting_are_refused() {
    assert!(refused(&[b"]q\0h\0a"]).contains("contains itself"));
    assert!(refused(&[b"}q\0K\x01(h\0tsK\x02K\x03s"]).contains("contains itself"));
    let deep = [b"]".repeat(1_000_000), b"a".repeat(999_999)].concat();
    assert!(refused(&[&deep]).contains("deep"));
    assert!(refused(&[b"K\x01", &b"\x85".repeat(1_000_000)]).contains("deep"));
    assert_eq!(read(&[&b"(".repeat(1_000_000), b"N"]).unwrap(), Value::None);
    assert!(read(&[&b"]".repeat(MAX_DEPTH), &b"a".repeat(MAX_DEPTH - 1)]).is_ok());
}

#[test]
fn short_files_can_t_cause_large_work() {
    // Ten times ten times ten … of the same list.
    let mut laughs = b"]q\0(NNNNNNNNNNe".to_vec();
    for i in 1..40u8 {
        laughs.extend([b']', b'q', i, b'(']);
        laughs.extend([b'h', i - 1].repeat(10));
        laughs.push(b'e');
    }
    assert!(refused(&[&laughs]).contains("memory to read"));
    // A long tuple copied again and again.
    let copies = [b"ctorch\nSize\nh\0\x85R0".as_slice()]
        .repeat(1000)
        .concat();
    assert!(refused(&[b"(", &b"N".repeat(100_000), b"tq\0", &copies]).contains("memory to read"));
    // Lengths that the file does not have.
    for p in [
        &b"X\xff\xff\xff\xffabc"[..],
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa",
        b"\x8b\xff\xff\xff\xffa",
        b"T\xff\xff\xff\x7f",
    ] {
        assert!(refused(&[p]).contains("ends in the middle"));
    }
    assert!(refused(&[b"\x8a\x09\0\0\0\0\0\0\0\0\x01"]).contains("64 bits"));
    assert!(refused(&[b"\x8a\x09\0\0\0\0\0\0\0\x80\0"]).contains("64 bits"));
    assert_eq!(
        read(&[b"\x8a\x09\0\0\0\0\0\0\0\x80\xff"]).unwrap(),
        Value::Int(i64::MIN)
    );
    assert_eq!(read(&[b"\x8a\0"]).unwrap(), Value::Int(0));
}

/// The n-th of some pickles that ask for gigabytes, after `padding` bytes that are of no use; `None` after the last.
fn greedy(n: usize, padding: usize) -> Option<(&'static str, Vec<u8>)> {
    let object = b"ccollections\nOrderedDict\n)R".as_slice();
    let dict = || {
        let entries = b"h\0h\x01".repeat(100_000);
        [b"X\x01\0\0\0aq\x000Nq\x010}q\x02(", &*entries, b"u0"].concat()
    };
    let tensor = {
        let storage =
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";
        let ones = [b"(", &*b"K\x01".repeat(16), b"t"].concat();
        let head = b"ctorch._utils\n_rebuild_tensor_v2\n(";
        let tail = b"\x89ccollections\nOrderedDict\n)RtR";
        [head, storage.as_slice(), b"K\0", &ones, &ones, tail].concat()
    };
    // A list of what the memo has under 0 a thousand times, of that list a thousand times, and so on.
    let lists = || {
        let list = |i: u8| [b"(", &*[b'h', i].repeat(1000), b"lq", &[i + 1], b"0"].concat();
        (0..4).flat_map(list).collect::<Vec<u8>>()
    };
    let numbered = |op: u8, n: u32, after: &'static [u8]| {
        let one = move |i: u32| [&[op], i.to_le_bytes().as_slice(), after].concat();
        (0..n).flat_map(one).collect::<Vec<u8>>()
    };
    let (what, body) = match n {
        0 => {
            let again = b"h\x02b".repeat(4000);
            (
                "attributes again and again",
                [&*dict(), object, &again].concat(),
            )
        }
        1 => {
            let again = [object, b"h\x02b"].concat().repeat(4000);
            ("many attributes", [dict(), again].concat())
        }
        2 => (
            "lists of lists of a tensor",
            [&*tensor, b"q\x000", &lists(), b"h\x04"].concat(),
        ),
        3 => (
            "lists of lists of nothing",
            [b"Nq\x000", &*lists(), b"h\x04"].concat(),
        ),
        4 => ("tensors", [b"(", &*tensor.repeat(300_000), b"l"].concat()),
        5 => {
            let tuple = [b"(", &*b"N".repeat(100_000), b"tq\0"].concat();
            (
                "copies of a tuple",
                [tuple, b"ctorch\nSize\nh\0\x85R".repeat(4000)].concat(),
            )
        }
        6 => {
            let pairs = [b"(", &*b"NN\x86".repeat(50_000), b"lq\0"].concat();
            let again = b"ccollections\nOrderedDict\nh\0\x85R".repeat(4000);
            ("dicts of the same pairs", [pairs, again].concat())
        }
        7 => {
            let text = [b"X\x80\x96\x98\0", &*b"a".repeat(10_000_000), b"q\x000"].concat();
            let again = b"c_codecs\nencode\nh\0h\x01\x86R".repeat(4000);
            let codec = b"X\x06\0\0\0latin1q\x010";
            ("text to bytes", [&*text, codec, &again].concat())
        }
        8 => (
            "the memo",
            [b"N".to_vec(), numbered(b'r', 4_000_000, b"")].concat(),
        ),
        9 => ("the stack", [b"N", &*b"2".repeat(20_000_000)].concat()),
        10 => ("marks", b"(".repeat(20_000_000)),
        11 => ("lists", [b"(", &*b"]".repeat(8_000_000), b"l"].concat()),
        12 => ("dicts", [b"(", &*b"}".repeat(8_000_000), b"l"].concat()),
        13 => (
            "lists of one",
            [b"(", &*b"]Na".repeat(4_000_000), b"l"].concat(),
        ),
        14 => (
            "short texts",
            [b"(", &*b"\x8c\0".repeat(8_000_000), b"l"].concat(),
        ),
        15 => {
            let keys = numbered(b'J', 3_000_000, b"N");
            ("integers as keys", [b"}(", &*keys, b"u"].concat())
        }
        _ => return None,
    };
    let length = (padding as u32).to_le_bytes();
    let head = [
        b"\x80\x02B".as_slice(),
        length.as_slice(),
        &vec![0; padding],
        b"0",
    ]
    .concat();
    Some((what, [&*head, &body, b"."].concat()))
}

/// Not a test of its own: the process whose memory the next test looks at.
#[test]
fn child_that_reads_greedy_pickles() {
    let Ok(which) = std::env::var(GREEDY) else {
        return;
    };
    let (number, padding) = which.split_once(' ').unwrap();
    let (_, pickle) = greedy(number.parse().unwrap(), padding.parse().unwrap()).unwrap();
    // What making the pickle took does not count.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let start = std::time::Instant::now();
    let error = from_bytes(&pickle).unwrap_err();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    println!("took {} ms,{peak}: {error}", start.elapsed().as_millis());
}

const GREEDY: &str = "TORCH_PTH_TEST_GREEDY_PICKLE";

#[cfg(target_os = "linux")]
#[test]
fn greedy_pickles_are_refused_before_they_take_memory() {
    for number in 0.. {
        let Some((what, _)) = greedy(number, 0) else {
            assert_eq!(number, 16);
            break;
        };
        for padding in [0, 20_000_000] {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "pickle::tests::child_that_reads_greedy_pickles",
                    "--exact",
                    "--nocapture",
                ])
                .env(GREEDY, format!("{number} {padding}"))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text
                .lines()
                .find_map(|l| l.split_once("took "))
                .unwrap_or_else(|| panic!("{what}: {text}"))
                .1;
            let peak = line
                .split_once(',')
                .unwrap()
                .1
                .split_whitespace()
                .next()
                .unwrap();
            let peak_mib = peak.parse::<usize>().unwrap() / 1024;
            assert!(peak_mib < 300, "{what}, padding {padding}: {line}");
        }
    }
}

#[test]
fn large_checkpoints_are_read() {
    let names = (0..20_000).map(|i| {
        (
            format!("blocks.{i}.attn.mat_qkv.weight"),
            tensor(&[64, 64, 3, 3], &i.to_string()),
        )
    });
    let mut state = Dict::from_pairs(names);
    state.ordered = true;
    let floats = (0..500_000).map(|i| Value::Float(f64::from(i))).collect();
    let value = Value::Dict(Dict::from_pairs([
        ("state", Value::Dict(state)),
        ("losses", Value::List(floats)),
    ]));
    assert!(from_bytes(&to_bytes(&value).unwrap()).unwrap() == value);
}

#[test]
fn attributes_are_set_once() {
    let object = b"ccollections\nOrderedDict\n)R";
    let state = b"}U\x01aNs";
    let Value::Dict(d) = read(&[object, state, b"b"]).unwrap() else {
        panic!()
    };
    assert_eq!(d.attr("a"), Some(&Value::None));
    assert!(refused(&[object, state, b"b", state, b"b"]).contains("set twice"));
    assert!(refused(&[object, b"}(U\x01aNU\x01aNub"]).contains("twice"));
}

#[test]
fn a_key_given_twice_is_refused() {
    assert!(refused(&[b"}(U\x01aNU\x01aNu"]).contains("twice"));
    assert!(refused(&[b"}(K\x01NK\x01Nu"]).contains("twice"));
}

#[test]
fn names_that_would_be_copied_for_every_tensor_are_refused() {
    // One long key around many tensors, one in sixty dicts, and one around many dicts.
    let key = "k".repeat(1_000_000);
    let many = |value: Value| {
        let inner = (0..2000).map(|i| (i.to_string(), value.clone()));
        Value::Dict(Dict::from_pairs([(
            key.clone(),
            Value::Dict(Dict::from_pairs(inner)),
        )]))
    };
    let deep = (0..60).fold(tensor(&[1], "0"), |value, _| {
        Value::Dict(Dict::from_pairs([(key.clone(), value)]))
    });
    for value in [
        many(tensor(&[1], "0")),
        many(Value::Dict(Dict::default())),
        deep,
    ] {
        let text = from_bytes(&to_bytes(&value).unwrap()).unwrap_err();
        assert!(
            text.to_string().contains("a name of 1000001 bytes"),
            "{text}"
        );
    }
    // Names add up on the way down.
    let nested = |bytes: usize| {
        let key = "k".repeat(bytes);
        let inner = Dict::from_pairs([(key.clone(), tensor(&[1], "0"))]);
        let value = Value::Dict(Dict::from_pairs([(key, Value::Dict(inner))]));
        from_bytes(&to_bytes(&value).unwrap())
    };
    assert!(nested(2047).is_ok());
    assert!(nested(2048).unwrap_err().to_string().contains("4098 bytes"));
    // Names that are just short enough are counted for every tensor.
    let key = "k".repeat(4000);
    let inner = (0..8000).map(|i| (i.to_string(), tensor(&[1], "0")));
    let value = Dict::from_pairs([(key, Value::Dict(Dict::from_pairs(inner)))]);
    let text = from_bytes(&to_bytes(&Value::Dict(value)).unwrap()).unwrap_err();
    assert!(text.to_string().contains("128 MiB"), "{text}");
}

#[test]
fn calls_with_other_arguments_are_told_by_their_python_names() {
    let text = refused(&[b"ctorch._utils\n_rebuild_tensor_v2\n)R"]);
    assert_eq!(
        text,
        "it calls torch._utils._rebuild_tensor_v2 with 0 arguments of kinds that it does not take"
    );
}

#[test]
fn every_truncation_is_refused() {
    let whole = to_bytes(&everything()).unwrap();
    for len in 0..whole.len() {
        assert!(from_bytes(&whole[..len]).is_err(), "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn random_instructions_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[&body]);
    }

    #[test]
    fn likely_instructions_never_panic(ops in prop::collection::vec(prop::sample::select(vec![
        &b"("[..], b"]", b"}", b")", b"N", b"K\x01", b"U\x01a", b"t", b"l", b"d", b"e", b"a", b"s", b"u", b"\x85", b"\x86", b"\x87",
        b"q\0", b"h\0", b"q\x01", b"h\x01", b"0", b"1", b"2", b"R", b"b", b"Q", b"\x8f", b"\x90", b"\x91", b"\x93", b"\x94",
        b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n",
        b"ctorch._utils\n_rebuild_parameter\n", b"cnumpy\ndtype\n", b"U\x07storage", b"c_codecs\nencode\n", b"U\x06latin1",
    ]), 0..60)) {
        let _ = read(&[&ops.concat()]);
    }

    #[test]
    fn damaged_pickles_never_panic(changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..6)) {
        let mut bytes = to_bytes(&everything()).unwrap();
        for (at, b) in changes {
            let n = bytes.len();
            bytes[at % n] = b;
        }
        let _ = from_bytes(&bytes);
    }
}

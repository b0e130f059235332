//! Python values as JSON and back, without loss: what JSON lacks is marked with an object of one `$` key.

use serde_json::{Map, Value as Json, json};

use torch_pth::{Dict, Value};

/// Entries of the options that the reference keeps as tuples; they are plain lists in JSON.
const TUPLES: [&str; 2] = ["patch_nums", "resos"];

/// The options as JSON.
pub(super) fn to_json(args: &Dict) -> Result<Map<String, Json>, String> {
    let mut out = Map::new();
    for (key, value) in &args.items {
        let Value::Str(key) = key else {
            return Err(format!(
                "the options hold a key of type {}",
                key.type_name()
            ));
        };
        let is_tuple = TUPLES.contains(&&**key);
        let json = match value {
            Value::Tuple(v) if is_tuple => list(v),
            Value::List(v) if is_tuple => list(v).map(|v| json!({ "$list": v })),
            other => encode(other),
        };
        out.insert(
            key.to_string(),
            json.map_err(|e| format!("the option {key:?} {e}"))?,
        );
    }
    Ok(out)
}

/// The options as an ordered dict.
pub(super) fn from_json(args: &Map<String, Json>) -> Value {
    let items = args
        .iter()
        .map(|(key, json)| {
            let value = match json {
                Json::Array(v) if TUPLES.contains(&key.as_str()) => {
                    Value::Tuple(v.iter().map(decode).collect())
                }
                other => decode(other),
            };
            (Value::str(key.as_str()), value)
        })
        .collect();
    Value::Dict(Dict {
        items,
        ordered: true,
        ..Dict::default()
    })
}

fn list(v: &[Value]) -> Result<Json, String> {
    v.iter()
        .map(encode)
        .collect::<Result<Vec<_>, _>>()
        .map(Json::Array)
}

/// One value as JSON; the error completes a sentence.
pub(super) fn encode(value: &Value) -> Result<Json, String> {
    Ok(match value {
        Value::None => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::Float(f) if f.is_finite() => json!(f),
        Value::Float(f) => json!({ "$float": f.to_string().to_lowercase() }),
        Value::Str(s) => json!(**s),
        Value::List(v) => list(v)?,
        Value::Tuple(v) => json!({ "$tuple": list(v)? }),
        Value::Set(v) => json!({ "$set": list(v)? }),
        Value::Dict(d) if !d.attrs.is_empty() => {
            return Err("holds an object with attributes".into());
        }
        Value::Dict(d) => {
            let plain = !d.ordered
                && d.items
                    .iter()
                    .all(|(k, _)| matches!(k, Value::Str(s) if !s.starts_with('$')));
            if plain {
                let mut map = Map::new();
                for (k, v) in &d.items {
                    if let Value::Str(k) = k {
                        map.insert(k.to_string(), encode(v)?);
                    }
                }
                Json::Object(map)
            } else {
                let pairs = d
                    .items
                    .iter()
                    .map(|(k, v)| Ok(json!([encode(k)?, encode(v)?])));
                let pairs: Vec<Json> = pairs.collect::<Result<_, String>>()?;
                if d.ordered {
                    json!({ "$ordered": pairs })
                } else {
                    json!({ "$dict": pairs })
                }
            }
        }
        Value::Bytes(_) | Value::Tensor(_) | Value::DType(_) => {
            return Err(format!(
                "is or holds a {}, which is not supported there",
                value.type_name()
            ));
        }
    })
}

/// JSON as a Python value. An unknown mark is an ordinary dict.
pub(super) fn decode(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::str(s.as_str()),
        Json::Array(v) => Value::List(v.iter().map(decode).collect()),
        Json::Object(map) => marked(map).unwrap_or_else(|| {
            Value::Dict(Dict::from_pairs(
                map.iter().map(|(k, v)| (k.as_str(), decode(v))),
            ))
        }),
    }
}

fn marked(map: &Map<String, Json>) -> Option<Value> {
    if map.len() != 1 {
        return None;
    }
    let (mark, inner) = map.iter().next()?;
    if mark == "$float" {
        return inner.as_str()?.parse().ok().map(Value::Float);
    }
    let elements = inner.as_array()?;
    match mark.as_str() {
        "$list" => Some(Value::List(elements.iter().map(decode).collect())),
        "$tuple" => Some(Value::Tuple(elements.iter().map(decode).collect())),
        "$set" => Some(Value::Set(elements.iter().map(decode).collect())),
        "$ordered" | "$dict" => {
            let pairs = elements.iter().map(|p| match p.as_array()?.as_slice() {
                [k, v] => Some((decode(k), decode(v))),
                _ => None,
            });
            let items = pairs.collect::<Option<Vec<_>>>()?;
            Some(Value::Dict(Dict {
                items,
                ordered: mark == "$ordered",
                ..Dict::default()
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_values_survive_json_text() {
        let ints = |v: &[i64]| v.iter().copied().map(Value::Int).collect::<Vec<_>>();
        let odd = Dict {
            items: vec![(Value::Int(1), Value::None)],
            ..Dict::default()
        };
        let ordered = Dict {
            ordered: true,
            ..Dict::from_pairs([("a", Value::Bool(true))])
        };
        let pairs = [
            ("patch_nums", Value::Tuple(ints(&[1, 2]))),
            ("resos", Value::List(ints(&[16]))),
            ("a tuple", Value::Tuple(vec![Value::Float(0.1)])),
            ("a list", Value::List(ints(&[i64::MIN, i64::MAX]))),
            (
                "floats",
                Value::List(
                    [
                        1e-5,
                        -0.0,
                        3.0,
                        f64::MIN_POSITIVE / 3.0,
                        f64::INFINITY,
                        f64::NEG_INFINITY,
                    ]
                    .map(Value::Float)
                    .to_vec(),
                ),
            ),
            ("none", Value::None),
            ("text", Value::str("$float")),
            (
                "dict",
                Value::Dict(Dict::from_pairs([("k", Value::Int(0))])),
            ),
            (
                "marked",
                Value::Dict(Dict::from_pairs([("$tuple", Value::List(vec![]))])),
            ),
            ("odd", Value::Dict(odd)),
            ("ordered", Value::Dict(ordered)),
            ("set", Value::Set(ints(&[5]))),
        ];
        let args = Dict {
            ordered: true,
            ..Dict::from_pairs(pairs)
        };
        let text = serde_json::to_string(&to_json(&args).unwrap()).unwrap();
        let back = from_json(&serde_json::from_str(&text).unwrap());
        assert_eq!(back, Value::Dict(args));
        let nan = decode(&encode(&Value::Float(f64::NAN)).unwrap());
        assert!(matches!(nan, Value::Float(f) if f.is_nan()));
        let bytes = Dict::from_pairs([("x", Value::Bytes([0].as_slice().into()))]);
        assert!(to_json(&bytes).unwrap_err().contains("\"x\""));
    }
}

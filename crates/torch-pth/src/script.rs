//! Modules of TorchScript programs as names and tensors.

use crate::{TensorRef, Value};

impl Value {
    /// The tensors below a module that [`PthFile::open_script`](crate::PthFile::open_script) has read, with the names of the attributes
    /// on the way to them joined by dots, as the module's `state_dict()` names them. What is no tensor is passed over.
    pub fn module_tensors(&self) -> Vec<(String, &TensorRef)> {
        let (mut found, mut name) = (Vec::new(), String::new());
        collect(self, &mut name, &mut found);
        found
    }
}

/// The way down is no deeper than a pickle may be.
fn collect<'a>(value: &'a Value, name: &mut String, found: &mut Vec<(String, &'a TensorRef)>) {
    match value {
        Value::Tensor(tensor) => found.push((name.clone(), tensor)),
        Value::Dict(dict) => {
            let above = name.len();
            for (key, value) in &dict.items {
                let Value::Str(key) = key else { continue };
                if above > 0 {
                    name.push('.');
                }
                name.push_str(key);
                collect(value, name, found);
                name.truncate(above);
            }
        }
        _ => {}
    }
}

//! The few protocol-buffer messages of TensorBoard's event files, encoded by hand. Field numbers are those
//! of `event.proto`, `summary.proto` and `tensor.proto`; fields are written in ascending order.

/// One value of a summary.
pub(super) enum Value<'a> {
    /// A number; the format holds float32.
    Scalar(f32),
    /// An encoded RGB image.
    Image {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// The PNG file.
        png: &'a [u8],
    },
    /// Markdown for the text page.
    Text(&'a str),
}

/// What an event says.
pub(super) enum What<'a> {
    /// The format's version: the first event of every file.
    Version,
    /// Values under their tags.
    Summary(&'a [(&'a str, Value<'a>)]),
    /// The run starts (again) at the event's step: readers forget what older files say from there on.
    Start,
}

/// Message bytes under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn int(&mut self, field: u32, value: u64) -> &mut Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    fn double(&mut self, field: u32, value: f64) -> &mut Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(&mut self, field: u32, value: f32) -> &mut Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn message(&mut self, field: u32, build: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        build(&mut inner);
        self.bytes(field, &inner.0)
    }
}

/// An event at `wall_time` (seconds since 1970) and `step`.
pub(super) fn event(wall_time: f64, step: i64, what: &What<'_>) -> Vec<u8> {
    const RGB: u64 = 3;
    const DT_STRING: u64 = 7;
    const DATA_CLASS_TENSOR: u64 = 2;
    const SESSION_START: u64 = 1;

    let mut event = Message::default();
    event.double(1, wall_time);
    if step != 0 {
        // Two's complement: a negative step takes ten bytes.
        event.int(2, step as u64);
    }
    match what {
        What::Version => {
            event.bytes(3, b"brain.Event:2");
        }
        What::Start => {
            event.message(7, |log| {
                log.int(1, SESSION_START);
            });
        }
        What::Summary(values) => {
            event.message(5, |summary| {
                for (tag, value) in *values {
                    summary.message(1, |entry| {
                        entry.bytes(1, tag.as_bytes());
                        match value {
                            Value::Scalar(number) => {
                                entry.float(2, *number);
                            }
                            Value::Image { width, height, png } => {
                                entry.message(4, |image| {
                                    image
                                        .int(1, u64::from(*height))
                                        .int(2, u64::from(*width))
                                        .int(3, RGB)
                                        .bytes(4, png);
                                });
                            }
                            Value::Text(text) => {
                                entry.message(8, |tensor| {
                                    tensor
                                        .int(1, DT_STRING)
                                        // The shape [1].
                                        .message(2, |shape| {
                                            shape.message(2, |dim| {
                                                dim.int(1, 1);
                                            });
                                        })
                                        .bytes(8, text.as_bytes());
                                });
                                entry.message(9, |metadata| {
                                    metadata
                                        .message(1, |plugin| {
                                            plugin.bytes(1, b"text");
                                        })
                                        .int(4, DATA_CLASS_TENSOR);
                                });
                            }
                        }
                    });
                }
            });
        }
    }
    event.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: f64 = 1_700_000_000.5;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The expected bytes were written by TensorBoard 2.21's own message classes.
    #[test]
    fn the_bytes_of_tensorboards_own_encoder() {
        assert_eq!(
            hex(&event(TIME, 0, &What::Version)),
            "0900002040fc54d9411a0d627261696e2e4576656e743a32"
        );
        let scalars = [
            ("AR_iter_loss/L_16", Value::Scalar(8.25)),
            ("b", Value::Scalar(0.0)),
        ];
        assert_eq!(
            hex(&event(TIME, 499, &What::Summary(&scalars))),
            "0900002040fc54d94110f3032a240a180a1141525f697465725f6c6f73732f4c5f313615000004410a080a01621500000000"
        );
        assert_eq!(
            hex(&event(
                TIME,
                -10_000,
                &What::Summary(&[("z", Value::Scalar(-1.5))])
            )),
            "0900002040fc54d94110f0b1ffffffffffffff012a0a0a080a017a150000c0bf"
        );
        assert_eq!(
            hex(&event(TIME, 300, &What::Start)),
            "0900002040fc54d94110ac023a020801"
        );
        let image = Value::Image {
            width: 200,
            height: 2,
            png: b"PNG",
        };
        assert_eq!(
            hex(&event(TIME, 2, &What::Summary(&[("img", image)]))),
            "0900002040fc54d94110022a150a130a03696d67220c080210c80118032203504e47"
        );
        let text = [("args/text_summary", Value::Text("a\nü"))];
        assert_eq!(
            hex(&event(TIME, 0, &What::Summary(&text))),
            "0900002040fc54d9412a310a2f0a11617267732f746578745f73756d6d617279420e08071204120208014204610ac3bc4a0a0a060a04746578742002"
        );
    }
}

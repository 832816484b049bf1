//! Bytes and JSON that nobody would send, made of what somebody would: the same ones each time.

use serde_json::{Map, Value, json};

/// Pieces that parsers trip over.
const PIECES: [&str; 14] = [
    "null",
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "\"",
    "{",
    "[",
    "]}",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "=",
    "\n",
];

/// A sequence of numbers that looks random; each seed has its own.
pub struct Dice(u64);

impl Dice {
    /// Begins a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is more than 0.
    pub fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    /// The same with something changed, cut out, put in or doubled, in one to four places.
    pub fn bytes(&mut self, of: &[u8]) -> Vec<u8> {
        let mut bytes = of.to_vec();
        for _ in 0..=self.below(4) {
            let (from, length) = (self.below(bytes.len() + 1), self.below(16));
            let to = (from + length).min(bytes.len());
            match self.below(5) {
                0 if from < bytes.len() => bytes[from] ^= 1 << self.below(8),
                1 => bytes.truncate(from),
                2 => drop(bytes.drain(from..to)),
                3 => drop(bytes.splice(from..from, bytes[from..to].to_vec())),
                _ => {
                    let piece = PIECES[self.below(PIECES.len())].bytes();
                    drop(bytes.splice(from..to, piece));
                }
            }
        }
        bytes
    }

    /// The same with one or two values that are others, missing, or too many.
    pub fn json(&mut self, of: &Value) -> Value {
        let mut value = of.clone();
        for _ in 0..=self.below(2) {
            self.change(&mut value);
        }
        value
    }

    fn change(&mut self, value: &mut Value) {
        let deeper = self.below(4) > 0;
        match value {
            Value::Object(fields) if deeper && !fields.is_empty() => self.change_field(fields),
            Value::Array(items) if deeper && !items.is_empty() => {
                let at = self.below(items.len());
                self.change(&mut items[at]);
            }
            other => *other = self.value(),
        }
    }

    fn change_field(&mut self, fields: &mut Map<String, Value>) {
        let at = self.below(fields.len());
        let name = fields.keys().nth(at).cloned().unwrap_or_default();
        match self.below(8) {
            0 => drop(fields.remove(&name)),
            1 => drop(fields.insert(format!("{name}s"), self.value())),
            _ => {
                if let Some(value) = fields.get_mut(&name) {
                    self.change(value);
                }
            }
        }
    }

    fn value(&mut self) -> Value {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        let values = [
            Value::Null,
            json!(true),
            json!(-1),
            json!(0),
            json!(1.5),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(f64::MAX),
            json!(""),
            json!(" "),
            json!("x"),
            json!("\u{0}\u{7f}\u{feff}"),
            json!("é".repeat(5000)),
            json!("12"),
            json!("1e400"),
            json!([]),
            json!([null, {}, "x"]),
            json!({}),
            deep,
        ];
        values[self.below(values.len())].clone()
    }
}

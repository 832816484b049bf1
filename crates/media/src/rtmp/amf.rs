//! AMF0, as far as it is spoken when a stream is asked for.

/// Objects in objects are believed down to here.
const MAX_DEPTH: usize = 8;

/// One value that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Text(String),
    Object(Vec<(String, Value)>),
    /// Anything that nobody asks for.
    Other,
}

impl Value {
    /// The text under this name, if it is an object.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let Self::Object(fields) = self else {
            return None;
        };
        let field = fields.iter().find(|(key, _)| key == name);
        match field {
            Some((_, Self::Text(text))) => Some(text),
            _ => None,
        }
    }
}

/// Reads values until there are no more, or none that makes sense.
pub(super) fn read_all(data: &[u8]) -> Vec<Value> {
    let mut reader = Reader(data);
    let mut values = Vec::new();
    while let Some(value) = reader.value(0) {
        values.push(value);
    }
    values
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        Some(match self.byte()? {
            0 => Value::Number(f64::from_be_bytes(self.take(8)?.try_into().ok()?)),
            1 => self.skip(1)?,
            2 => Value::Text(self.text()?),
            3 => Value::Object(self.fields(depth)?),
            5 | 6 => Value::Other,
            8 => {
                self.take(4)?;
                Value::Object(self.fields(depth)?)
            }
            10 => {
                let count = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
                for _ in 0..count {
                    self.value(depth + 1)?;
                }
                Value::Other
            }
            11 => self.skip(10)?,
            12 => {
                let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
                self.skip(usize::try_from(length).ok()?)?
            }
            _ => return None,
        })
    }

    fn fields(&mut self, depth: usize) -> Option<Vec<(String, Value)>> {
        let mut fields = Vec::new();
        loop {
            let name = self.text()?;
            if name.is_empty() && self.0.first() == Some(&9) {
                self.take(1)?;
                return Some(fields);
            }
            fields.push((name, self.value(depth + 1)?));
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        let text = self.take(usize::from(length))?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn skip(&mut self, count: usize) -> Option<Value> {
        self.take(count).map(|_| Value::Other)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Values that are written one after the other.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(mut self, number: f64) -> Self {
        self.0.push(0);
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.push(2);
        self.name(text);
        self
    }

    pub(super) fn null(mut self) -> Self {
        self.0.push(5);
        self
    }

    /// An object of texts and numbers, and the names of codecs that are understood besides.
    pub(super) fn object(
        mut self,
        texts: &[(&str, &str)],
        numbers: &[(&str, f64)],
        codecs: &[&str],
    ) -> Self {
        self.0.push(3);
        for (name, text) in texts {
            self.name(name);
            self = self.text(text);
        }
        for (name, number) in numbers {
            self.name(name);
            self = self.number(*number);
        }
        self.name("fourCcList");
        self.0.push(10);
        self.0.extend((codecs.len() as u32).to_be_bytes());
        for codec in codecs {
            self = self.text(codec);
        }
        self.0.extend([0, 0, 9]);
        self
    }

    fn name(&mut self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
        self.0.extend((text.len() as u16).to_be_bytes());
        self.0.extend(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let writer = Writer::default().text("connect").number(1.0).null();
        let written = writer
            .object(&[("app", "live")], &[("x", 2.5)], &["hvc1"])
            .0;
        let values = read_all(&written);
        assert_eq!(values.len(), 4);
        assert_eq!(values[0], Value::Text("connect".to_owned()));
        assert_eq!(values[1], Value::Number(1.0));
        assert_eq!(values[3].text("app"), Some("live"));
        for cut in 0..written.len() {
            assert!(read_all(&written[..cut]).len() < 4);
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep: Vec<u8> = [3, 0, 1, b'a'].repeat(10_000);
        assert_eq!(read_all(&deep), []);
        assert_eq!(read_all(&[10, 255, 255, 255, 255, 5]), []);
        assert_eq!(read_all(&[12, 255, 255, 255, 255]), []);
    }
}
